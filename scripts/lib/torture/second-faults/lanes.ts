/** The lanes that run in parallel until the time is over: first faults, attaches and detaches, and second faults. */
import { setTimeout as delay } from 'node:timers/promises';
import { readMounts } from '../../../../system/proc.js';
import type { Bus } from './bus.js';
import { comeAndGo, save } from './healthy.js';
import type { Random } from './random.js';
import type { Scene } from './scene.js';
import { isAlive, kill } from './stage.js';

/** less than the silence that a keeper allows its server */
const STOPPED_MS = 500;
const WATCH_MS = 300;

export type IsOver = () => boolean;

/** Runs `work`; a failure on a bus that should live is an error. */
async function attempt(bus: Bus, what: string, act: () => Promise<unknown>): Promise<void> {
  try {
    await act();
  } catch (error) {
    if (!bus.isLost) {
      bus.journal.error(bus.name, `${what}: ${(error as Error).message}`);
      console.log((await bus.whereItStands()).join('\n'));
    }
    await delay(1_000);
  }
}

/** First faults: kills the server, replaces it, stops it for a moment. */
export async function disturb(bus: Bus, random: Random, isOver: IsOver): Promise<void> {
  while (!isOver() && !bus.isLost) {
    await delay(random.between(500, 3_000));
    const way = random.below(10);
    const act = way < 6 ? replaceDead : way < 8 ? upgrade : halt;
    await attempt(bus, act.name, () => bus.quietly(async () => (isOver() ? undefined : act(bus))));
  }
}

async function replaceDead(bus: Bus): Promise<void> {
  await bus.settled(await bus.killServer());
}

async function upgrade(bus: Bus): Promise<void> {
  await bus.demand('upgrade', ['upgrade']);
}

async function halt(bus: Bus): Promise<void> {
  const { serverPid } = await bus.info();
  if (serverPid === null) return;
  bus.journal.count('SIGSTOP of a server');
  kill(serverPid, 'SIGSTOP');
  await delay(STOPPED_MS);
  kill(serverPid, 'SIGCONT');
}

/** Attaches and detaches vbds, and copies those that stay. */
export async function visit(bus: Bus, random: Random, isOver: IsOver): Promise<void> {
  while (!isOver() && !bus.isLost) {
    await delay(random.between(200, 2_000));
    if (random.isOneIn(4)) await attempt(bus, 'save', () => save(bus, random));
    else await attempt(bus, 'attach and detach', () => comeAndGo(bus, random));
  }
}

/** Second faults, one after another; several lanes make several at a time. */
export async function makeFaults(scene: Scene, random: Random, isOver: IsOver): Promise<void> {
  while (!isOver() && scene.living.length > 0) {
    await delay(random.between(100, 1_500));
    const faults = scene.free();
    const { living } = scene;
    if (faults.length === 0 || living.length === 0) continue;
    const [fault, bus] = [random.pick(faults), random.pick(living)];
    await attempt(bus, fault.name, () =>
      bus.quietly(async () => {
        // another lane may have made it while this one waited
        if (isOver() || bus.isLost || !scene.free().includes(fault)) return;
        await scene.with(fault, bus, random);
      }),
    );
  }
}

/** Checks that keeper and mount of each bus that should live exist. */
export async function watch(scene: Scene, isOver: IsOver): Promise<void> {
  const keepers = new Map<Bus, number | null>();
  for (const bus of scene.living) keepers.set(bus, (await bus.info()).keeperPid);
  while (!isOver()) {
    await delay(WATCH_MS);
    const mounted = new Set((await readMounts('self')).map(({ mountpoint }) => mountpoint));
    for (const [bus, pid] of keepers) {
      if (!mounted.has(bus.place.path)) bus.lose('its mount is gone');
      if (pid === null || !isAlive(pid)) bus.lose(`its keeper (process ${pid}) is gone`);
    }
  }
}
