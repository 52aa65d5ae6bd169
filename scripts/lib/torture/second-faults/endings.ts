/** The ways to end a bus: signals to its keeper, the death of one process or both, force. */
import { setTimeout as delay } from 'node:timers/promises';
import { type Bus, eventually } from './bus.js';
import { whyNoRemote } from './faults/hanging-image.js';
import type { Random } from './random.js';
import { REMOTE_BYTES, RemoteImage } from './remote-image.js';
import { isAlive, kill, type Stage } from './stage.js';

export interface Ending {
  readonly name: string;
  readonly about: string;
  /** whether all acknowledged data must be in the images afterwards */
  readonly isFlushed: boolean;
  /** whether its log may stay, because a flush failed */
  readonly keepsLog?: boolean;
  /** environment variables of its bus */
  readonly env?: NodeJS.ProcessEnv;
  whyNot(stage: Stage): Promise<string | null>;
  /** Ends the bus; its processes may still run for a moment. @throws Error if something failed */
  play(bus: Bus, random: Random): Promise<void>;
}

const always = async (): Promise<null> => null;
const ENDS_MS = 30_000;
/** how long an orphan must serve */
const SERVES_MS = 2_000;
/** how long --force may wait for a disk that hangs */
const FLUSH_LIMIT_MS = 5_000;

/** The pid of a process of the bus. @throws Error if it has none */
async function pidOf(bus: Bus, which: 'keeperPid' | 'serverPid'): Promise<number> {
  const pid = (await bus.info())[which];
  if (pid === null) throw new Error(`there is no ${which}`);
  return pid;
}

const isGone = (pid: number) => (): boolean => !isAlive(pid);

async function bySignals(bus: Bus, random: Random): Promise<void> {
  const keeper = await pidOf(bus, 'keeperPid');
  const signals = random.isOneIn(2) ? (['SIGTERM', 'SIGHUP'] as const) : (['SIGHUP', 'SIGTERM'] as const);
  bus.writer.isEndExpected = true;
  for (const signal of [...signals, ...signals]) {
    kill(keeper, signal);
    await delay(random.pick([0, 0, 20, 200]));
  }
  await eventually(`the keeper ends by ${signals.join(' and ')}`, bus.stage.pace.scaled(ENDS_MS), isGone(keeper));
}

/** The keeper is killed; the server must go on serving, including writes to memory that was never written. */
async function orphan(bus: Bus): Promise<number> {
  const { keeperPid, serverPid } = await bus.info();
  if (keeperPid === null || serverPid === null) throw new Error('a process of the bus is missing');
  kill(keeperPid, 'SIGKILL');
  await eventually(
    'the bus is orphaned',
    bus.stage.pace.scaled(ENDS_MS),
    async () => (await bus.info().catch(() => null))?.state === 'orphaned',
  );
  const deadline = Date.now() + SERVES_MS;
  while (Date.now() < deadline)
    await bus.writer.progress(
      bus.disks.map(({ path }) => path),
      bus.healthyLimitMs,
    );
  return serverPid;
}

async function byStopOfOrphan(bus: Bus): Promise<void> {
  await orphan(bus);
  for (const { path } of bus.disks) await bus.writer.end(path, true);
  await bus.demand('stop, of an orphan', ['stop'], { limitMs: bus.stage.pace.scaled(ENDS_MS) });
}

async function bySignalToOrphan(bus: Bus): Promise<void> {
  const server = await orphan(bus);
  bus.writer.isEndExpected = true;
  kill(server, 'SIGTERM');
  await eventually('the orphan ends by SIGTERM', bus.stage.pace.scaled(ENDS_MS), isGone(server));
}

async function byDeathOfBoth(bus: Bus): Promise<void> {
  const server = await orphan(bus);
  bus.writer.isEndExpected = true;
  kill(server, 'SIGKILL');
  await eventually('the server ends by SIGKILL', bus.stage.pace.scaled(ENDS_MS), isGone(server));
  await bus.demand('stop, of a dead bus', ['stop'], { limitMs: bus.stage.pace.scaled(ENDS_MS) });
}

async function byForceBesideHang(bus: Bus): Promise<void> {
  const image = await RemoteImage.serve(bus.stage, `hanging-${bus.name}`);
  await bus.adopt({ driver: 'aio', passthrough: 'off', image: image.path, sizeBytes: REMOTE_BYTES }, bus.sick);
  image.hang();
  const standing = bus.journal.begin('hang', image.path);
  try {
    await delay(500);
    bus.writer.isEndExpected = true;
    const outcome = await bus.command('stop --force, beside a hang', ['stop', '--force'], {
      limitMs: FLUSH_LIMIT_MS + bus.healthyLimitMs,
    });
    if (outcome.status !== 0 && outcome.stderr === '')
      bus.journal.error(bus.name, 'stop --force fails and says nothing');
  } finally {
    image.goOn();
    bus.journal.end(standing);
  }
}

export const ENDINGS: readonly Ending[] = [
  {
    name: 'signals',
    about: 'SIGTERM and SIGHUP, twice, to the keeper: the bus flushes and ends',
    isFlushed: true,
    whyNot: always,
    play: bySignals,
  },
  {
    name: 'orphan',
    about: 'the keeper is killed: the server goes on, then stop ends it',
    isFlushed: true,
    whyNot: always,
    play: byStopOfOrphan,
  },
  {
    name: 'orphan-term',
    about: 'the keeper is killed, then SIGTERM to the server: it flushes and ends',
    isFlushed: true,
    whyNot: always,
    play: bySignalToOrphan,
  },
  {
    name: 'both-killed',
    about: 'keeper and server are killed: no acknowledged data is lost from the images',
    isFlushed: false,
    whyNot: always,
    play: byDeathOfBoth,
  },
  {
    name: 'force-hang',
    about: 'stop --force while the file system of one image hangs: it ends within its limit',
    isFlushed: false,
    keepsLog: true,
    env: { FUSETAP_FLUSH_LIMIT_MS: `${FLUSH_LIMIT_MS}` },
    whyNot: whyNoRemote,
    play: byForceBesideHang,
  },
];
