/** A Dispatcher with two files and, instead of the device, a memfd that collects its replies. */
import { closeSync, fstatSync, readSync } from 'node:fs';
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import { type DispatchContext, Dispatcher } from '../../../mount/fuse/event-loop/dispatch.js';
import { createRequestMemory } from '../../../mount/fuse/thread/request-memory.js';
import { CounterPages, createStats, MAIN_AREA } from '../../../mount/ledger/counters.js';
import { createLedger, Ledger } from '../../../mount/ledger/ledger.js';
import { Tree } from '../../../mount/transport/tree.js';
import { memfdCreate } from '../../../system/libc.js';
import { bufferDisk } from '../../conformance/buffer-disk.js';
import { type ParsedReply, parseReplies } from './wire.js';

export const OWNER = { uid: 1234, gid: 2345, sinceMs: 1_600_000_000_000 };
/** when the files were attached */
export const ATTACHED_MS = 1_650_000_000_000;

export interface NewFile {
  nodeId: number;
  name: string;
  disk: Disk;
  mode?: number;
  /** default: its own record */
  flushIndex?: number;
}

export interface DispatchFixture {
  readonly dispatcher: Dispatcher;
  readonly tree: Tree;
  readonly ledger: Ledger;
  readonly forgotten: number[];
  addFile(file: NewFile): void;
  /** Dispatches, waits for at least `atLeast` replies, and returns all replies. */
  ask(bytes: Uint8Array, atLeast?: number): Promise<ParsedReply[]>;
  close(): void;
}

/** A disk over a Buffer, which is not a window. */
export function plainDisk(bytes: Buffer, readOnly = false): Disk {
  return frontDisk(bufferDisk(bytes), { readOnly });
}

const PATIENCE_MS = 2_000;

/** The context of a Dispatcher, without files. Its memory is never freed: use it only in short-lived programs. */
export function makeDispatchContext(deviceFd: number): DispatchContext {
  return {
    deviceFds: [deviceFd],
    tree: new Tree(),
    ledger: new Ledger(createLedger()),
    counters: new CounterPages(createStats(), MAIN_AREA),
    owner: OWNER,
    requestMemory: createRequestMemory(),
    writeBeside: (_, write) => write(),
    forgotten: () => {},
    resizeRefused: () => {},
  };
}

/** Puts a file into the tree and the ledger, as an attach does. */
export function addFile({ tree, ledger }: Pick<DispatchContext, 'tree' | 'ledger'>, file: NewFile): void {
  const ledgerIndex = file.nodeId - 2;
  ledger.resetFile(ledgerIndex, { mode: file.mode ?? 0o600, uid: 0, gid: 0 }, ATTACHED_MS);
  tree.add({ flushIndex: ledgerIndex, ...file, ledgerIndex, inherited: false, backingId: null });
}

export function makeDispatchFixture(): DispatchFixture {
  const device = memfdCreate('device');
  const forgotten: number[] = [];
  const context: DispatchContext = {
    ...makeDispatchContext(device),
    forgotten: (nodeId) => forgotten.push(nodeId),
  };
  const { tree, ledger } = context;
  const dispatcher = new Dispatcher(context);
  let taken = 0;
  const takeReplies = (): ParsedReply[] => {
    // write(2) moved the position; reading at a given offset does not change it
    const bytes = Buffer.alloc(fstatSync(device).size - taken);
    readSync(device, bytes, 0, bytes.length, taken);
    taken += bytes.length;
    return parseReplies(bytes);
  };
  return {
    dispatcher,
    tree,
    ledger,
    forgotten,
    addFile: (file) => addFile(context, file),
    async ask(bytes, atLeast = 1) {
      const deadline = performance.now() + PATIENCE_MS;
      dispatcher.dispatch(0, bytes);
      const replies = takeReplies();
      while (replies.length < atLeast && performance.now() < deadline) {
        await delay(1);
        replies.push(...takeReplies());
      }
      // if there were a second reply, it would come now
      for (let turn = 0; turn < 4; turn++) await nextTurn();
      return [...replies, ...takeReplies()];
    },
    close: () => closeSync(device),
  };
}
