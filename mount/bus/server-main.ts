/**
 * The server process. It ends only by SIGKILL of itself: while a thread is blocked in read(2), process.exit, an
 * uncaught error or terminate would all hang for ever, and the keeper would see nothing.
 */
import { FusetapError, toFusetapError } from '../../drivers/errors.js';
import { KernelTransport } from '../fuse/kernel-transport.js';
import { Ledger } from '../ledger.js';
import type { Transport, TransportEvents } from '../transport.js';
import { ForgetWaiters } from './forget-waiters.js';
import type { Command, Envelope, ServerMessage, ServerStart } from './ipc.js';
import { logRefusedResizes } from './log-refused-resizes.js';
import { atIntervals } from './progress.js';
import { Server } from './server.js';

const die = (): never => {
  process.kill(process.pid, 'SIGKILL');
  // unreachable, but a signal is asynchronous to the compiler
  for (;;);
};
const dieOf = (error: unknown): never => {
  // stderr is the bus's log file: written synchronously
  console.error(error);
  return die();
};
process.on('uncaughtException', dieOf);
process.on('unhandledRejection', dieOf);
process.on('exit', die);
// only the keeper acts on these
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});

const start = JSON.parse(process.argv[2] ?? '') as ServerStart;

function send(message: ServerMessage): void {
  // a keeper that is gone is noticed by `disconnect`
  if (process.connected) process.send?.(message, undefined, undefined, () => {});
}

const ledger = new Ledger(start.ledgerFd);
const forgets = new ForgetWaiters();
const events: TransportEvents = {
  forgotten: (nodeId) => {
    forgets.tell(nodeId);
    send({ kind: 'forgotten', nodeId });
  },
  memoryWanted: (nodeId) => send({ kind: 'memory-wanted', nodeId }),
  resizeRefused: logRefusedResizes(),
  gone: () => {
    if (process.connected) send({ kind: 'gone' });
    // with nobody to tell, there is nothing left to serve; an orphan that unmounts clears its files away first
    else if (!isEnding) die();
  },
};
const transport = await makeTransport();
const server = new Server(start.keeperPid, transport, ledger, events.memoryWanted);
const running = new Map<number, AbortController>();
/** told to serve */
let begun = false;
/** an orphan that takes its own mount away */
let isEnding = false;

/** The one that is not the default is loaded only where it is wanted: it needs a package that may not be there. */
async function makeTransport(): Promise<Transport> {
  const { ledgerFd, statsFd, owner, deviceFds, place, allowOther, mapsFiles } = start;
  if (start.transport === 'kernel') {
    return new KernelTransport({ deviceFds, ledger, ledgerFd, statsFd, mapsFiles, owner, events, fail: dieOf });
  }
  const { FuseNativeTransport } = await import('../fuse-native/native-transport.js');
  return new FuseNativeTransport({ mountpoint: place.path, allowOther, ledger, statsFd, owner, events });
}

interface Stoppable {
  readonly signal: AbortSignal;
  readonly progress: (doneBytes: number, totalBytes: number) => void;
}

/** What takes long: it can be cancelled, and tells how far it is. */
function stoppable(id: number, work: (means: Stoppable) => Promise<unknown>): Promise<unknown> {
  const abort = new AbortController();
  running.set(id, abort);
  const progress = atIntervals((doneBytes, totalBytes) => send({ kind: 'progress', id, doneBytes, totalBytes }));
  return work({ signal: abort.signal, progress }).finally(() => running.delete(id));
}

function execute(id: number, command: Command): Promise<unknown> {
  switch (command.op) {
    case 'describe':
      return server.describe(command);
    case 'measure':
      return stoppable(id, ({ signal }) => server.measure(command, signal));
    case 'prepare':
      return stoppable(id, ({ signal, progress }) => server.prepare(command, signal, progress));
    case 'save':
      return stoppable(id, ({ signal, progress }) => server.save(command, signal, progress));
    case 'cancel':
      running.get(command.target)?.abort();
      return Promise.resolve(null);
    case 'start':
      begun = true;
      transport.start();
      return Promise.resolve(null);
    case 'ping':
      return Promise.resolve(null);
    case 'attach':
      return server.attach(command);
    case 'partitions':
      return server.partitions(command.nodeId);
    case 'show':
      return server.show(command);
    case 'swap':
      return server.swap(command);
    case 'hold':
      return server.hold(command.nodeId);
    case 'release':
      return server.release(command.nodeId);
    case 'poison':
      return server.poison(command.nodeId);
    case 'leave':
      return server.leave(command);
    case 'detach':
      return server.detach(command.nodeId);
  }
}

process.on('message', ({ id, command }: Envelope) => {
  execute(id, command).then(
    (result) => send({ kind: 'done', id, result }),
    (error: unknown) => {
      const message = `${command.op} failed: ${error instanceof Error ? error.message : String(error)}`;
      send({ kind: 'failed', id, error: toFusetapError(error, message).toJSON() });
    },
  );
});
// see "When the keeper dies" in docs/architecture.md
process.on('disconnect', async () => {
  // loaded to take another's place, which it cannot do without the keeper: as an orphan it would never read
  if (!begun) die();
  transport.alone();
  const { Orphan } = await import('./orphan.js');
  const { place, transport: name, allowOther } = start;
  const ends = (): void => {
    isEnding = true;
  };
  await Orphan.begin({ place, transport: name, allowOther, server, ledger, forgets, ends, die });
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
