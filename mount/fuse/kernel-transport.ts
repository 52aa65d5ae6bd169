/**
 * The kernel transport, the server's half: threads for windows, the dispatcher for the rest.
 */

import type { Disk } from '../../drivers/disk.js';
import type { Window } from '../../drivers/driver.js';
import { addressOf, E, pread2, RWF_NOWAIT } from '../../system/libc.js';
import type { Ownership } from '../file-rules.js';
import type { Ledger } from '../ledger.js';
import { CounterPages, MAIN_AREA } from '../stats.js';
import type { Abilities, BusFile, Transport, TransportEvents } from '../transport.js';
import { Dispatcher } from './dispatch.js';
import { MappedWindows } from './mapped-windows.js';
import { Threads } from './threads.js';
import { Tree } from './tree.js';

export interface KernelTransportOptions {
  /** /dev/fuse as mounted, and its clones: one thread each */
  readonly deviceFds: readonly number[];
  readonly ledger: Ledger;
  readonly ledgerFd: number;
  readonly statsFd: number;
  /** whether images on tmpfs may be mapped, too, and not only memory (mapped-write.ts) */
  readonly mapsFiles: boolean;
  readonly owner: Ownership;
  readonly events: TransportEvents;
  /** called where the process cannot go on */
  fail(error: Error): void;
}

export const KERNEL_ABILITIES: Abilities = {
  restart: true,
  passthrough: true,
  fallocate: true,
  seekData: true,
  sizeIoctl: true,
  singleTimes: true,
};

export class KernelTransport implements Transport {
  readonly abilities = KERNEL_ABILITIES;
  readonly #tree = new Tree();
  readonly #threaded = new Set<number>();
  readonly #dispatcher: Dispatcher;
  readonly #threads: Threads;
  readonly #mapped: MappedWindows;

  constructor(options: KernelTransportOptions) {
    this.#dispatcher = new Dispatcher({
      deviceFds: options.deviceFds,
      tree: this.#tree,
      ledger: options.ledger,
      counters: new CounterPages(options.statsFd, MAIN_AREA),
      owner: options.owner,
      isThreaded: (nodeId) => this.#threaded.has(nodeId),
      forgotten: (nodeId) => options.events.forgotten(nodeId),
      resizeRefused: ({ name }, size) => options.events.resizeRefused(name, size),
    });
    this.#threads = new Threads(options.deviceFds, options.ledgerFd, options.statsFd, {
      request: (thread, bytes) => this.#dispatcher.dispatch(thread, bytes),
      mapped: () => this.#mapped.used(),
      memoryWanted: (nodeId) => options.events.memoryWanted(nodeId),
      gone: () => options.events.gone(),
      failed: options.fail,
    });
    this.#mapped = new MappedWindows({ takeUse: () => this.#threads.takeMapped(), mapsFiles: options.mapsFiles });
  }

  load(): Promise<void> {
    return this.#threads.loaded;
  }

  start(): void {
    this.#threads.open();
  }

  add(file: BusFile): void {
    this.#serveByThreads(file);
    this.#tree.add(file);
  }

  #serveByThreads(file: BusFile): void {
    const { window } = file.disk;
    if (window === undefined) return;
    this.#threaded.add(file.nodeId);
    this.#threads.serve(file.nodeId, {
      window,
      ledgerIndex: file.ledgerIndex,
      canReadNoWait: window.kind !== 'memory' && canReadNoWait(window),
      mappedAt: this.#mapped.map(file.nodeId, window),
    });
  }

  /** Resolves when no thread serves the file any more. */
  async #withdraw(nodeId: number): Promise<void> {
    if (!this.#threaded.delete(nodeId)) return;
    await this.#threads.withdraw(nodeId);
    this.#mapped.unmap(nodeId);
  }

  setLeaving(nodeId: number, leaving: boolean): boolean {
    const node = this.#tree.byId(nodeId);
    if (node === undefined) return false;
    node.leaving = leaving;
    return node.lookups !== 0;
  }

  async hold(nodeId: number): Promise<void> {
    // held first: what the threads no longer serve goes to the dispatcher at once
    const held = this.#dispatcher.hold(nodeId);
    await this.#withdraw(nodeId);
    await held;
  }

  release(nodeId: number): void {
    this.#dispatcher.release(nodeId);
    const node = this.#tree.byId(nodeId);
    if (node !== undefined) this.#serveByThreads(node.file);
  }

  /** No thread has its window while it is held; `release` gives them the new one. */
  swap(nodeId: number, disk: Disk): void {
    const node = this.#tree.byId(nodeId);
    if (node !== undefined) node.file = { ...node.file, disk };
  }

  alone(): void {
    this.#mapped.onlyMemory();
    for (const nodeId of this.#threaded) {
      const node = this.#tree.byId(nodeId);
      if (node !== undefined) this.#serveByThreads(node.file);
    }
  }

  poison(nodeId: number): void {
    const node = this.#tree.byId(nodeId);
    if (node !== undefined) node.poisoned = true;
  }

  async remove(nodeId: number): Promise<void> {
    this.#tree.remove(nodeId);
    // what waits for it gets EIO, as all that comes now
    this.#dispatcher.release(nodeId);
    await this.#withdraw(nodeId);
  }
}

/** Asks once: a file system without RWF_NOWAIT says EOPNOTSUPP to every such read. */
function canReadNoWait(window: Window): boolean {
  const byte = Buffer.alloc(1);
  return pread2(window.fd, addressOf(byte), 1, window.start, RWF_NOWAIT) !== -E.EOPNOTSUPP;
}
