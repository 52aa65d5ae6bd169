/**
 * The server process. It ends only by SIGKILL of itself: while a thread is blocked in read(2), process.exit, an
 * uncaught error or terminate would all hang for ever, and the keeper would see nothing.
 */
import { toFusetapError } from '../../drivers/errors.js';
import { KernelTransport } from '../fuse/kernel-transport.js';
import { Ledger } from '../ledger.js';
import type { Transport, TransportEvents } from '../transport.js';
import type { Command, Envelope, ServerMessage, ServerStart } from './ipc.js';
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
  process.send?.(message, undefined, undefined, () => {});
}

const ledger = new Ledger(start.ledgerFd);
const events: TransportEvents = {
  forgotten: (nodeId) => send({ kind: 'forgotten', nodeId }),
  gone: () => send({ kind: 'gone' }),
};
const transport: Transport = new KernelTransport({
  deviceFds: start.deviceFds,
  ledger,
  ledgerFd: start.ledgerFd,
  owner: start.owner,
  events,
  fail: dieOf,
});
const server = new Server(start.keeperPid, transport, ledger);
const running = new Map<number, AbortController>();

function execute(id: number, command: Command): Promise<unknown> {
  switch (command.op) {
    case 'describe':
      return server.describe(command.driver);
    case 'prepare': {
      const abort = new AbortController();
      running.set(id, abort);
      const progress = (doneBytes: number, totalBytes: number): void =>
        send({ kind: 'progress', id, doneBytes, totalBytes });
      return server.prepare(command, abort.signal, progress).finally(() => running.delete(id));
    }
    case 'cancel':
      running.get(command.target)?.abort();
      return Promise.resolve(null);
    case 'start':
      transport.start();
      return Promise.resolve(null);
    case 'ping':
      return Promise.resolve(null);
    case 'attach':
      return server.attach(command);
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
// without its keeper the bus cannot be managed; see "The keeper dies" in docs/architecture.md
process.on('disconnect', die);

await transport.load();
send({ kind: 'loaded' });
