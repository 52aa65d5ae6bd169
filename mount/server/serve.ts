/**
 * The server process, after its beginning (main.ts). It ends only by sending SIGKILL to itself: while a thread is blocked in read(2), process.exit, an
 * uncaught error and terminate would all hang for ever, and the keeper would not notice.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError, toFusetapError } from '../../drivers/errors.js';
import { preloadDrivers } from '../../drivers/registry.js';
import { exitAtOnce, setCloseOnExec } from '../../system/libc.js';
import { keepYoungHeapSmall } from '../../system/young-heap.js';
import { atIntervals } from '../control/progress.js';
import { KernelTransport } from '../fuse/event-loop/kernel-transport.js';
import { ForgetWaiters } from '../holders/forget-waiters.js';
import { closeInheritedImages } from '../images/image-fds.js';
import { Ledger } from '../ledger/ledger.js';
import { RamCredit } from '../ram/credit.js';
import { Bookkeeping } from '../runtime/bookkeeping.js';
import { leaveLastWords } from '../runtime/last-words.js';
import type { Transport, TransportEvents } from '../transport/transport.js';
import { VERSION } from '../version.js';
import { start, threads } from './beginning.js';
import { blame, type DriversDisk } from './blame.js';
import type { Command, Envelope, ServerMessage } from './commands.js';
import { Keeping } from './keeping.js';
import { logRefusedResizes } from './log-refused-resizes.js';
import { MemoryQuestions } from './memory-questions.js';
import { translated } from './older-keepers.js';
import type { Orphan } from './orphan.js';
import { fdsOfKeeper, neededFds, type PassedFds, takePassed } from './passed-fds.js';
import { ServerRamImages } from './ram-images.js';
import { Server, type Stoppable } from './server.js';

/** the orphan code is loaded this long after the start: the client that started the bus waits for its first bytes, or mounts them */
const PRELOAD_DELAY_MS = 500;
/** the code of drivers that no vbd uses yet: a bus that lives so long may see an update of the package */
const PRELOAD_DRIVERS_DELAY_MS = 5_000;
/** the usual threads are loaded by then; they load faster while V8 has no flags */
const SMALL_HEAP_DELAY_MS = 2_000;
/** pauses between tries to load it, if the package is missing: with a keeper, and without one */
const PRELOAD_RETRY_MS = 5_000;
const LOAD_RETRY_MS = 500;
let orphanModule: Promise<typeof import('./orphan.js') | null> | null = null;
let isLoadFailureTold = false;

/** the keeper has sent `start` */
let begun = false;
/** the keeper has died */
let isOrphan = false;
/** this orphan is removing its own mount */
let isEnding = false;
/** why this orphan has to end */
let endsBecause: string | null = null;
let orphan: Orphan | null = null;

let openDisks = (): DriversDisk[] => [];

const die = (): never => {
  process.kill(process.pid, 'SIGKILL');
  // unreachable, but a signal is asynchronous to the compiler
  for (;;);
};
/** Tells the keeper why this process dies: it sees only the signal. */
const dieBecauseOf = (what: string, error: unknown): never => {
  // stderr is the bus's log file: written synchronously
  console.error(error);
  const how = `${what}: ${error instanceof Error ? error.message : String(error)}`;
  leaveLastWords(start.place.stateDir, { pid: process.pid, how, ...blame(error, openDisks()) });
  return die();
};
/** An uncaught error kills the server, because the keeper replaces it. An orphan, which nobody replaces, goes on. */
const failedBy =
  (what: string) =>
  (error: unknown): void => {
    if (isOrphan) console.error(error);
    else dieBecauseOf(what, error);
  };
const failed = failedBy('uncaught error');
process.on('uncaughtException', failed);
process.on('unhandledRejection', failedBy('unhandled rejection'));
process.on('exit', (status) => dieBecauseOf('it was ended', new Error(`process.exit(${status})`)));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => endBecause(signal));

closeInheritedImages();

function send(message: ServerMessage): void {
  // the death of the keeper is noticed by `disconnect`
  if (process.connected) process.send?.(message, undefined, undefined, () => {});
}

// a program that is started from here must not inherit the socket: descriptors under way in it would stay open
if (start.passingFd !== undefined) setCloseOnExec(start.passingFd);

const ledger = new Ledger(start.ledgerFd);
const forgets = new ForgetWaiters();
const events: TransportEvents = {
  forgotten: (nodeId) => {
    forgets.tell(nodeId);
    send({ kind: 'forgotten', nodeId });
  },
  resizeRefused: logRefusedResizes(),
  memoryWanted: (nodeId) => questions.ask(nodeId),
  gone: () => {
    if (process.connected) send({ kind: 'gone' });
    // nothing is left to serve, but acknowledged writes may have to be flushed
    else if (!isEnding) endBecause('the mount was taken away');
  },
};
const keeping = new Keeping(send, start.passingFd, ledger);
const transport = await makeTransport();
const server = new Server(start.keeperPid, transport, ledger, {
  memoryWanted: events.memoryWanted,
  closing: (memory) => memories.drop(memory),
  hostFor: (disk) => keeping.hostFor(disk),
});
openDisks = () => server.disks();
const books = new Bookkeeping();
const { runtimeDir } = start.place;
const memories = new ServerRamImages({ runtimeDir, keeperPid: start.keeperPid }, books, () => server.memories());
const credit = new RamCredit(ledger, memories, () => server.credited());
const questions = new MemoryQuestions(credit, (nodeId) => send({ kind: 'memory-wanted', nodeId }));
const running = new Map<number, AbortController>();

/** fuse-native is loaded only if it is used: it needs a package that may not be installed. */
async function makeTransport(): Promise<Transport> {
  const { ledgerFd, statsFd, owner, deviceFds, place, allowOther, mapsFiles, keeperPid } = start;
  if (start.transport === 'kernel') {
    const files = { deviceFds, ledger, ledgerFd, statsFd };
    return new KernelTransport({
      ...files,
      mapsFiles,
      owner,
      keeperPid,
      events,
      fail: failed,
      threads: threads ?? undefined,
    });
  }
  const { FuseNativeTransport } = await import('../fuse-native/native-transport.js');
  return new FuseNativeTransport({ mountpoint: place.path, allowOther, ledger, statsFd, owner, events });
}

/** Runs a command that takes long: it can be cancelled, and reports its progress. */
function stoppable(id: number, work: (means: Stoppable) => Promise<unknown>): Promise<unknown> {
  const abort = new AbortController();
  running.set(id, abort);
  const progress = atIntervals((doneBytes, totalBytes) => send({ kind: 'progress', id, doneBytes, totalBytes }));
  return work({ signal: abort.signal, progress }).finally(() => running.delete(id));
}

/** The descriptors of a command that has just been read. */
function passedFor(id: number, command: Command): PassedFds {
  const { passingFd, keeperPid } = start;
  const hasNone = passingFd === undefined || neededFds(command).length === 0;
  return hasNone ? fdsOfKeeper(keeperPid) : takePassed(passingFd, id);
}

async function execute(id: number, command: Command): Promise<unknown> {
  const passed = passedFor(id, command);
  return await act(id, command, passed).finally(() => passed.end());
}

function act(id: number, command: Command, passed: PassedFds): Promise<unknown> {
  switch (command.op) {
    case 'plan':
      return server.plan(command);
    case 'needs':
      return server.needs(command, passed);
    case 'describe':
      return server.describe(command);
    case 'measure':
      return stoppable(id, ({ signal }) => server.measure(command, passed, signal));
    case 'prepare':
      return stoppable(id, (means) => server.prepare(command, passed, means));
    case 'repair':
      return stoppable(id, (means) => server.repair(command, passed, means));
    case 'save':
      return stoppable(id, (means) => server.save(command, passed, means));
    case 'copyTo':
      return stoppable(id, (means) => server.copyTo(command, passed, means));
    case 'hasData':
      return stoppable(id, ({ signal }) => server.hasData(command, passed, signal));
    case 'commit':
      return stoppable(id, (means) => server.commit(command, means));
    case 'changes':
      return server.changes(command);
    case 'map':
      return server.map(command);
    case 'names':
      return server.names();
    case 'nameReads':
      return server.nameReads();
    case 'attach':
      return server.attach(command, passed);
    case 'partitions':
      return server.partitions(command);
    case 'show':
      return server.show(command);
    case 'swap':
      return server.swap(command, passed);
    case 'repartition':
      return server.repartition(command);
    case 'sizeOf':
      return server.sizeOf(command, passed);
    case 'resize':
      return server.resize(command, passed);
    case 'hold':
      return server.pause(command.nodeId, command.holders);
    case 'release':
      return server.resume(command.nodeId);
    case 'poison':
      return server.makeKernelForget(command.nodeId);
    case 'leave':
      return server.leave(command);
    case 'giveUp':
      return server.giveUp(command.nodeId);
    case 'detach':
      return server.detach(command.nodeId, command.isUnused);
    default:
      return actOnProcess(command);
  }
}

/** Commands that are about this process, not about disks. */
async function actOnProcess(
  command: Extract<Command, { readonly op: 'cancel' | 'start' | 'kept' | 'ping' }>,
): Promise<null> {
  switch (command.op) {
    case 'cancel':
      running.get(command.target)?.abort();
      return null;
    case 'start':
      begun = true;
      transport.start();
      setTimeout(preloadOrphan, PRELOAD_DELAY_MS);
      setTimeout(keepYoungHeapSmall, SMALL_HEAP_DELAY_MS);
      setTimeout(preloadAllDrivers, PRELOAD_DRIVERS_DELAY_MS);
      return null;
    case 'kept':
      keeping.answered(command.number, command.error);
      return null;
    case 'ping':
      return null;
    default:
      throw unknownCommand(command);
  }
}

/** Of a keeper that is newer than this server. */
function unknownCommand({ op }: { readonly op: string }): FusetapError {
  return new FusetapError('UNSUPPORTED', `the server is of an older version: it does not know ${op}`, {
    hint: 'fusetap upgrade replaces it',
  });
}

process.on('message', ({ id, command }: Envelope) => {
  questions.heardKeeper();
  execute(id, translated({ command })).then(
    (result) => send({ kind: 'done', id, result }),
    (error: unknown) => {
      const message = `${command.op} failed: ${error instanceof Error ? error.message : String(error)}`;
      send({ kind: 'failed', id, error: toFusetapError(error, message).toJSON() });
    },
  );
});
/** Loads the code of an orphan ahead of time: when it is needed, the package may be gone or replaced. */
function loadOrphan(): Promise<typeof import('./orphan.js') | null> {
  orphanModule ??= import('./orphan.js').catch((error: unknown) => {
    if (!isLoadFailureTold)
      console.error('the code for serving without a keeper cannot be loaded; trying again:', error);
    isLoadFailureTold = true;
    orphanModule = null;
    return null;
  });
  return orphanModule;
}

/** Tries again until it is loaded, or needed. */
async function preloadOrphan(): Promise<void> {
  if (!isOrphan && (await loadOrphan()) === null) setTimeout(preloadOrphan, PRELOAD_RETRY_MS);
}

/** As long as the package is missing, tries again. */
function preloadAllDrivers(): void {
  preloadDrivers().catch(() => setTimeout(preloadAllDrivers, PRELOAD_RETRY_MS));
}

/** Waits for the orphan code, because a missing package may come back. Until then I/O is served, but no command. */
async function awaitOrphan(): Promise<typeof import('./orphan.js')> {
  for (;;) {
    const loaded = await loadOrphan();
    if (loaded !== null) return loaded;
    await delay(LOAD_RETRY_MS);
  }
}

/** Ends an orphan. A server that has a keeper leaves that to the keeper. */
function endBecause(why: string): void {
  if (!isOrphan) return;
  endsBecause = why;
  void orphan?.endBecause(why);
}

// see "When the keeper dies" in docs/architecture.md
process.on('disconnect', async () => {
  // without the keeper, a server that has not started would never get `start`, and never read
  if (!begun) die();
  isOrphan = true;
  for (const abort of running.values()) abort.abort();
  transport.noSuccessor();
  keeping.keeperDied();
  questions.keeperDied();
  const loaded = await awaitOrphan();
  const { place, transport: name, allowOther, statsFd, lockFd } = start;
  const ends = (): void => {
    isEnding = true;
  };
  const parts = { server, memories, books, ledger, statsFd, lockFd, forgets };
  orphan = new loaded.Orphan({ place, transport: name, allowOther, ...parts, ends, exit: exitAtOnce });
  await orphan.begin();
  if (endsBecause !== null) await orphan.endBecause(endsBecause);
});
// the keeper may have died before the handler above was installed
if (!process.connected) die();

try {
  await transport.load();
} catch (error) {
  if (!(error instanceof FusetapError) || error.code === 'FAILED') console.error(error);
  const told: ServerMessage = { kind: 'unable', error: toFusetapError(error, String(error)).toJSON() };
  await new Promise((resolve) => process.send?.(told, resolve));
  die();
}
send({ kind: 'loaded', version: VERSION });
