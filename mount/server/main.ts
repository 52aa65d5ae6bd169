/**
 * The server process. It ends only by SIGKILL of itself: while a thread is blocked in read(2), process.exit, an
 * uncaught error or terminate would all hang for ever, and the keeper would see nothing.
 */
import '../runtime/own-process.js';
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError, toFusetapError } from '../../drivers/errors.js';
import { exitAtOnce, setCloseOnExec } from '../../system/libc.js';
import { atIntervals } from '../control/progress.js';
import { KernelTransport } from '../fuse/event-loop/kernel-transport.js';
import { ForgetWaiters } from '../holders/forget-waiters.js';
import { closeInheritedImages } from '../images/image-fds.js';
import { Ledger } from '../ledger/ledger.js';
import { MemoryCredit } from '../ram/credit.js';
import { Bookkeeping } from '../runtime/bookkeeping.js';
import type { Transport, TransportEvents } from '../transport/transport.js';
import type { Command, Envelope, ServerMessage, ServerStart } from './commands.js';
import { logRefusedResizes } from './log-refused-resizes.js';
import { MemoryQuestions } from './memory-questions.js';
import type { Orphan } from './orphan.js';
import { fdsOfKeeper, neededFds, type PassedFds, takePassed } from './passed-fds.js';
import { ServerMemories } from './ram-images.js';
import { Server, type Stoppable } from './server.js';

/** a client that has begun the bus is waiting for its first bytes */
const PRELOAD_DELAY_MS = 250;
/** between tries to load it, while the package is away: with a keeper, and without one */
const PRELOAD_RETRY_MS = 5_000;
const LOAD_RETRY_MS = 500;
let orphanModule: Promise<typeof import('./orphan.js') | null> | null = null;
let isLoadFailureTold = false;

/** told to serve */
let begun = false;
/** the keeper is gone for good */
let isOrphan = false;
/** an orphan that takes its own mount away */
let isEnding = false;
/** why an orphan is to end */
let endsBecause: string | null = null;
let orphan: Orphan | null = null;

const die = (): never => {
  process.kill(process.pid, 'SIGKILL');
  // unreachable, but a signal is asynchronous to the compiler
  for (;;);
};
const dieBecauseOf = (error: unknown): never => {
  // stderr is the bus's log file: written synchronously
  console.error(error);
  return die();
};
/** Nobody replaces a server without a keeper: to it no error is worse than its own end. */
const failed = (error: unknown): void => {
  if (isOrphan) console.error(error);
  else dieBecauseOf(error);
};
process.on('uncaughtException', failed);
process.on('unhandledRejection', failed);
process.on('exit', die);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => endBecause(signal));

closeInheritedImages();
const start = JSON.parse(process.argv[2] ?? '') as ServerStart;

function send(message: ServerMessage): void {
  // a keeper that is gone is noticed by `disconnect`
  if (process.connected) process.send?.(message, undefined, undefined, () => {});
}

// a program that is started from here must not keep a descriptor that is under way from going
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
    // nothing is left to serve, but perhaps something to flush
    else if (!isEnding) endBecause('the mount was taken away');
  },
};
const transport = await makeTransport();
const server = new Server(start.keeperPid, transport, ledger, {
  memoryWanted: events.memoryWanted,
  closing: (memory) => memories.drop(memory),
});
const books = new Bookkeeping();
const { runtimeDir } = start.place;
const memories = new ServerMemories({ runtimeDir, keeperPid: start.keeperPid }, books, () => server.memories());
const credit = new MemoryCredit(ledger, memories, () => server.credited());
const questions = new MemoryQuestions(credit, (nodeId) => send({ kind: 'memory-wanted', nodeId }));
const running = new Map<number, AbortController>();

/** The one that is not the default is loaded only where it is wanted: it needs a package that may not be there. */
async function makeTransport(): Promise<Transport> {
  const { ledgerFd, statsFd, owner, deviceFds, place, allowOther, mapsFiles, keeperPid } = start;
  if (start.transport === 'kernel') {
    const files = { deviceFds, ledger, ledgerFd, statsFd };
    return new KernelTransport({ ...files, mapsFiles, owner, keeperPid, events, fail: failed });
  }
  const { FuseNativeTransport } = await import('../fuse-native/native-transport.js');
  return new FuseNativeTransport({ mountpoint: place.path, allowOther, ledger, statsFd, owner, events });
}

/** What takes long: it can be cancelled, and tells how far it is. */
function stoppable(id: number, work: (means: Stoppable) => Promise<unknown>): Promise<unknown> {
  const abort = new AbortController();
  running.set(id, abort);
  const progress = atIntervals((doneBytes, totalBytes) => send({ kind: 'progress', id, doneBytes, totalBytes }));
  return work({ signal: abort.signal, progress }).finally(() => running.delete(id));
}

/** The descriptors for a command that has just been read. */
function passedFor(id: number, command: Command): PassedFds {
  const hasNone = start.passingFd === undefined || neededFds(command).length === 0;
  return hasNone ? fdsOfKeeper(start.keeperPid) : takePassed(start.passingFd, id);
}

async function execute(id: number, command: Command): Promise<unknown> {
  const passed = passedFor(id, command);
  return await act(id, command, passed).finally(() => passed.end());
}

function act(id: number, command: Command, passed: PassedFds): Promise<unknown> {
  switch (command.op) {
    case 'describe':
      return server.describe(command);
    case 'measure':
      return stoppable(id, ({ signal }) => server.measure(command, passed, signal));
    case 'prepare':
      return stoppable(id, (means) => server.prepare(command, passed, means));
    case 'save':
      return stoppable(id, (means) => server.save(command, passed, means));
    case 'cancel':
      running.get(command.target)?.abort();
      return Promise.resolve(null);
    case 'start':
      begun = true;
      transport.start();
      setTimeout(preloadOrphan, PRELOAD_DELAY_MS);
      return Promise.resolve(null);
    case 'ping':
      return Promise.resolve(null);
    case 'attach':
      return server.attach(command, passed);
    case 'partitions':
      return server.partitions(command.nodeId);
    case 'show':
      return server.show(command);
    case 'swap':
      return server.swap(command, passed);
    case 'hold':
      return server.hold(command.nodeId, command.holders);
    case 'release':
      return server.release(command.nodeId);
    case 'poison':
      return server.makeKernelForget(command.nodeId);
    case 'leave':
      return server.leave(command);
    case 'detach':
      return server.detach(command.nodeId);
  }
}

process.on('message', ({ id, command }: Envelope) => {
  questions.heardKeeper();
  execute(id, command).then(
    (result) => send({ kind: 'done', id, result }),
    (error: unknown) => {
      const message = `${command.op} failed: ${error instanceof Error ? error.message : String(error)}`;
      send({ kind: 'failed', id, error: toFusetapError(error, message).toJSON() });
    },
  );
});
/** Loaded before it is needed, when perhaps the package is gone or another; and after the first requests were served. */
function loadOrphan(): Promise<typeof import('./orphan.js') | null> {
  orphanModule ??= import('./orphan.js').catch((error: unknown) => {
    if (!isLoadFailureTold) console.error('what serves without a keeper cannot be loaded, and is tried again:', error);
    isLoadFailureTold = true;
    orphanModule = null;
    return null;
  });
  return orphanModule;
}

/** What was away once may be away again when it is needed. */
async function preloadOrphan(): Promise<void> {
  if (!isOrphan && (await loadOrphan()) === null) setTimeout(preloadOrphan, PRELOAD_RETRY_MS);
}

/** Until it is loaded the orphan serves on, but nobody can ask or end it: a package that is away may come back. */
async function awaitOrphan(): Promise<typeof import('./orphan.js')> {
  for (;;) {
    const loaded = await loadOrphan();
    if (loaded !== null) return loaded;
    await delay(LOAD_RETRY_MS);
  }
}

/** Only an orphan ends by itself: for all others the keeper does what is to be done. */
function endBecause(why: string): void {
  if (!isOrphan) return;
  endsBecause = why;
  void orphan?.endBecause(why);
}

// see "When the keeper dies" in docs/architecture.md
process.on('disconnect', async () => {
  // loaded to take another's place, which it cannot do without the keeper: as an orphan it would never read
  if (!begun) die();
  isOrphan = true;
  for (const abort of running.values()) abort.abort();
  transport.noSuccessor();
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
// it went while this was being loaded, when nobody listened
if (!process.connected) die();

try {
  await transport.load();
} catch (error) {
  if (!(error instanceof FusetapError) || error.code === 'FAILED') console.error(error);
  const told: ServerMessage = { kind: 'unable', error: toFusetapError(error, String(error)).toJSON() };
  await new Promise((resolve) => process.send?.(told, resolve));
  die();
}
send({ kind: 'loaded' });
