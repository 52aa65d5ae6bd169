/**
 * A program that serves a KernelTransport without keeper or server, for kernel-transport.test.ts and malformed.test.ts.
 * Its threads block in read(2), so it ends only by SIGKILL, from its parent or, after an error, from itself.
 *
 *     node transport-child.js mount DIRECTORY     mounts there and serves
 *     node transport-child.js device FD           serves a descriptor that stands for the device
 */
import { type ChildProcess, fork } from 'node:child_process';
import { ftruncateSync, writeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import { windowDisk } from '../../../drivers/segments/window.js';
import { KernelTransport } from '../../../mount/fuse/event-loop/kernel-transport.js';
import { mountKernel } from '../../../mount/fuse/mounting/device.js';
import { createStats } from '../../../mount/ledger/counters.js';
import { createLedger, Ledger } from '../../../mount/ledger/ledger.js';
import { memfdCreate } from '../../../system/libc.js';
import { killChild } from './client.js';
import { plainDisk } from './dispatch-fixture.js';

export const DISK_BYTES = (1 << 20) + 77;
export const OWNER = { uid: 0, gid: 0, sinceMs: 1_600_000_000_000 };
/** node ids: memory served by threads, the same read-only, and a disk that is not a window */
export const MEMORY = 2;
export const MEMORY_READ_ONLY = 3;
export const PLAIN = 4;
export const NAMES = { [MEMORY]: 'xvda', [MEMORY_READ_ONLY]: 'xvdb', [PLAIN]: 'xvdc' } as const;
/** not used, because root mounts without a helper */
const NEVER = { lockPath: '/dev/null', removesDirectory: false };
const PATTERN = 'abcdefg';
export const content = (): Buffer => Buffer.alloc(DISK_BYTES, PATTERN);

export interface Command {
  readonly do: 'hide' | 'show' | 'remove' | 'pause' | 'resume' | 'count handles' | 'fail a flush';
  readonly nodeId: number;
}

export type Report = { readonly done: unknown } | { readonly forgotten: number } | 'ready' | 'gone';

export interface TransportChild {
  readonly process: ChildProcess;
  /** node ids, in the order in which they were forgotten */
  readonly forgotten: readonly number[];
  readonly isGone: () => boolean;
  ask(command: Command): Promise<unknown>;
  kill(): Promise<void>;
}

/** Starts a child that mounts on a directory, or that serves its descriptor 4, one end of a socket pair. */
export async function startTransport(on: { mount: string } | 'socket'): Promise<TransportChild> {
  const args = on === 'socket' ? ['device', '4'] : ['mount', on.mount];
  const stdio = ['ignore', 'inherit', 'inherit', 'ipc', ...(on === 'socket' ? (['pipe'] as const) : [])] as const;
  const child = fork(fileURLToPath(import.meta.url), args, { stdio: [...stdio] });
  const forgotten: number[] = [];
  let gone = false;
  const waiting: ((result: unknown) => void)[] = [];
  await new Promise<void>((resolve, reject) => {
    child.once('exit', () => reject(new Error('the transport ended')));
    child.on('message', (report: Report) => {
      if (report === 'ready') resolve();
      else if (report === 'gone') gone = true;
      else if ('forgotten' in report) forgotten.push(report.forgotten);
      else waiting.shift()?.(report.done);
    });
  });
  return {
    process: child,
    forgotten,
    isGone: () => gone,
    ask: (command) =>
      new Promise((resolve) => {
        waiting.push(resolve);
        child.send(command);
      }),
    kill: () => killChild(child),
  };
}

function die(error?: unknown): never {
  if (error !== undefined) console.error(error);
  process.kill(process.pid, 'SIGKILL');
  // wait for the signal
  for (;;);
}

function memoryDisk(readOnly: boolean): Disk {
  const fd = memfdCreate('memory');
  ftruncateSync(fd, DISK_BYTES);
  writeSync(fd, content());
  const window = { fd, start: 0, size: DISK_BYTES, kind: 'memory', readOnly, durable: false } as const;
  return frontDisk(
    windowDisk(window, async () => {}),
    { readOnly },
  );
}

function makeTransport(deviceFds: readonly number[]): { transport: KernelTransport; ledger: Ledger } {
  const ledgerFd = createLedger();
  const ledger = new Ledger(ledgerFd);
  const send = (report: Report): void => {
    process.send?.(report);
  };
  const transport = new KernelTransport({
    ...{ deviceFds, ledger, ledgerFd, statsFd: createStats(), owner: OWNER, keeperPid: 1, mapsFiles: true, fail: die },
    events: {
      forgotten: (nodeId) => send({ forgotten: nodeId }),
      gone: () => send('gone'),
      resizeRefused: () => {},
      memoryWanted: (nodeId) => {
        const question = ledger.creditQuestion(nodeId - 2);
        if (question !== null) ledger.giveCredit(nodeId - 2, question.pages, question.number, false);
      },
    },
  });
  const disks = { [MEMORY]: memoryDisk(false), [MEMORY_READ_ONLY]: memoryDisk(true), [PLAIN]: plainDisk(content()) };
  for (const [id, disk] of Object.entries(disks)) {
    const nodeId = Number(id) as keyof typeof NAMES;
    const ledgerIndex = nodeId - 2;
    ledger.resetFile(ledgerIndex, { mode: 0o600, uid: 0, gid: 0 }, OWNER.sinceMs);
    const indexes = { ledgerIndex, flushIndex: ledgerIndex };
    transport.add({ nodeId, ...indexes, name: NAMES[nodeId], disk, inherited: false, backingId: null });
  }
  return { transport, ledger };
}

async function obey(transport: KernelTransport, ledger: Ledger, command: Command): Promise<unknown> {
  const { nodeId } = command;
  switch (command.do) {
    case 'hide':
      return transport.setLeaving(nodeId, true);
    case 'show':
      return transport.setLeaving(nodeId, false);
    case 'remove':
      return transport.remove(nodeId);
    case 'pause':
      return transport.pause(nodeId);
    case 'resume':
      return transport.resume(nodeId);
    case 'count handles':
      return ledger.countHandles().get(nodeId) ?? 0;
    case 'fail a flush':
      return ledger.noteFlushError(nodeId - 2, 5);
  }
}

async function serve(mode: string, where: string): Promise<void> {
  process.on('uncaughtException', die);
  process.on('unhandledRejection', die);
  process.on('disconnect', () => die());
  const deviceFds =
    mode === 'mount'
      ? (await mountKernel(where, { devices: 4, allowOther: false, end: NEVER })).deviceFds
      : [Number(where)];
  const { transport, ledger } = makeTransport(deviceFds);
  process.on('message', (command: Command) => {
    obey(transport, ledger, command).then((result) => process.send?.({ done: result ?? null } satisfies Report), die);
  });
  await transport.load();
  transport.start();
  process.send?.('ready' satisfies Report);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await serve(process.argv[2] ?? '', process.argv[3] ?? '');
