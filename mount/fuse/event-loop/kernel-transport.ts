/**
 * The kernel transport, the server's half: threads for disks that are segments or have a map, the dispatcher for the rest.
 */
import type { MapView, Window } from '../../../drivers/driver.js';
import { windowOf } from '../../../drivers/segments/one-segment.js';
import { durably } from '../../../drivers/segments/window-sync.js';
import { addressOf, E, preadNoWait } from '../../../system/libc.js';
import { CounterPages, MAIN_AREA } from '../../ledger/counters.js';
import type { Ledger } from '../../ledger/ledger.js';
import { type Ownership, writesDurably } from '../../transport/file-rules.js';
import type { Abilities, BusFile, NamesOfFile, Transport, TransportEvents } from '../../transport/transport.js';
import { Tree } from '../../transport/tree.js';
import * as abi from '../protocol/abi.js';
import { isIo, type Request } from '../protocol/message.js';
import { ELSEWHERE, type Places, placesOf, type ServedMap, type ServedWindow } from '../thread/served-disk.js';
import { NO_TURNS } from '../thread/write-turns.js';
import type { BegunThreads } from './begin-threads.js';
import { Dispatcher } from './dispatch.js';
import { ImageTurns } from './image-turns.js';
import { MappedWindows } from './mapped-windows.js';
import { type ThreadEvents, Threads } from './threads.js';

export interface KernelTransportOptions {
  /** /dev/fuse as mounted, and its clones: one thread each */
  readonly deviceFds: readonly number[];
  readonly ledger: Ledger;
  readonly ledgerFd: number;
  readonly statsFd: number;
  /** whether images on tmpfs may be mapped, besides memory (mapped-write.ts) */
  readonly mapsFiles: boolean;
  readonly owner: Ownership;
  readonly keeperPid: number;
  readonly events: TransportEvents;
  /** the first thread, if it was started already */
  readonly threads?: BegunThreads | undefined;
  /** called if the process cannot go on */
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
  readonly #ledger: Ledger;
  /** by node: the disk that threads serve */
  readonly #threaded = new Map<number, Places>();
  /** files that were taken from the threads, until no thread uses them any more */
  readonly #withdrawals = new Map<number, Promise<void>>();
  readonly #paused = new Set<number>();
  /** by node: says to its map that threads do not serve it any more */
  readonly #unserve = new Map<number, () => void>();
  /** files whose I/O waits because their disk hangs */
  readonly #stuck = new Set<number>();
  readonly #dispatcher: Dispatcher;
  readonly #threads: Threads;
  readonly #mapped: MappedWindows;
  readonly #turns: ImageTurns;

  constructor(options: KernelTransportOptions) {
    this.#ledger = options.ledger;
    const events: ThreadEvents = {
      request: (device, bytes) => this.#dispatcher.dispatch(device, bytes),
      requestIn: (device, bytes, length) => this.#dispatcher.dispatchCopy(device, bytes, length),
      isForThreads: (request) => this.#isForThreads(request),
      underWay: () => this.#dispatcher.underWay,
      answerMs: () => this.#dispatcher.answerMs,
      mapped: () => {
        this.#mapped.used();
        this.#turns.want();
      },
      memoryWanted: (nodeId) => options.events.memoryWanted(nodeId),
      stuck: (nodeIds) => {
        for (const nodeId of nodeIds) void this.#putAside(nodeId);
      },
      gone: () => options.events.gone(),
      failed: options.fail,
    };
    this.#threads = new Threads(options, events, options.threads);
    this.#dispatcher = new Dispatcher({
      deviceFds: options.deviceFds,
      tree: this.#tree,
      ledger: options.ledger,
      counters: new CounterPages(options.statsFd, MAIN_AREA),
      owner: options.owner,
      requestMemory: this.#threads.requestMemory,
      writeBeside: (nodeId, write) => this.#turns.beside(nodeId, write),
      forgotten: (nodeId) => options.events.forgotten(nodeId),
      resizeRefused: ({ name }, size) => options.events.resizeRefused(name, size),
    });
    this.#turns = new ImageTurns(this.#threads.turnMemory, options.keeperPid);
    this.#mapped = new MappedWindows({
      takeUse: () => this.#threads.takeMapped(),
      idle: () => this.#turns.giveUpAll(),
      mapsFiles: options.mapsFiles,
    });
  }

  load(): Promise<void> {
    return this.#threads.loaded;
  }

  start(): void {
    this.#threads.open();
  }

  async add(file: BusFile): Promise<void> {
    await this.#noteWriter(file);
    this.#serveByThreads(file);
    this.#tree.add(file);
  }

  /** Counts a writer that uses the lock of the file: threads must not bypass the lock while there is one. */
  async #noteWriter({ nodeId, disk, backingId, bytesFd = null, isShared = false }: BusFile): Promise<void> {
    this.#turns.removeWriter(nodeId);
    const isThreads = windowOf(disk) !== undefined && backingId === null && !isShared;
    if (!isThreads && !disk.readOnly && bytesFd !== null) await this.#turns.addWriter(nodeId, bytesFd);
  }

  #serveByThreads(file: BusFile): void {
    const { nodeId, ledgerIndex, flushIndex, disk } = file;
    const { segments = [], map } = disk;
    if (segments.length === 0 && map === undefined) return;
    const window = windowOf(disk);
    const served =
      window === undefined
        ? segments.map((segment) => ({ offset: segment.offset, served: unmapped(segment, segment.kind === 'memory') }))
        : [{ offset: 0, served: this.#mappedWindow(nodeId, window) }];
    const servedMap = map === undefined ? null : mapOf(map, disk.size);
    const forThreads = { ledgerIndex, flushIndex, segments: served, map: servedMap };
    this.#threaded.set(nodeId, placesOf(forThreads));
    this.#threads.serve(nodeId, forThreads);
    this.#unserve.get(nodeId)?.();
    const nodes = new Set([nodeId]);
    const unserve = map?.map.servedBy({ quiesce: () => this.#threads.quiesce(nodes) });
    if (unserve !== undefined) this.#unserve.set(nodeId, unserve);
  }

  #mappedWindow(nodeId: number, window: Window): ServedWindow {
    const mappedAt = this.#mapped.map(nodeId, window);
    const turns = mappedAt === 0 ? NO_TURNS : this.#turns.add(nodeId, window);
    return { ...unmapped(window, window.kind === 'memory'), mappedAt, turns };
  }

  #isForThreads(request: Request): boolean {
    const { opcode, nodeId } = request;
    const places = this.#threaded.get(nodeId);
    if (places === undefined || !isIo(opcode)) return false;
    if (opcode === abi.FSYNC && this.#ledger.flushErrors(places.flushIndex).count > 0) return false;
    if (opcode === abi.WRITE && places.isMap && writesDurably(request.bodyU32(abi.RW_FLAGS))) return false;
    if (opcode !== abi.READ && opcode !== abi.WRITE) return !places.isMap;
    const [offset, length] = [request.bodyU64(abi.RW_OFFSET), request.bodyU32(abi.RW_SIZE)];
    return places.find(offset, length, opcode === abi.WRITE) !== ELSEWHERE;
  }

  /** Resolves when no thread serves the file any more. */
  async #withdraw(nodeId: number): Promise<void> {
    if (this.#threaded.delete(nodeId)) {
      const gone = this.#threads.withdraw(nodeId).then(() => {
        this.#turns.remove(nodeId);
        this.#mapped.unmap(nodeId);
        this.#unserve.get(nodeId)?.();
        this.#unserve.delete(nodeId);
        this.#withdrawals.delete(nodeId);
      });
      this.#withdrawals.set(nodeId, gone);
    }
    await this.#withdrawals.get(nodeId);
  }

  /** A disk hangs: its new requests wait here and take no threads, until the threads have finished theirs. */
  async #putAside(nodeId: number): Promise<void> {
    if (this.#stuck.has(nodeId) || !this.#threaded.has(nodeId)) return;
    this.#stuck.add(nodeId);
    void this.#dispatcher.pause(nodeId);
    await this.#withdraw(nodeId);
    this.#stuck.delete(nodeId);
    if (!this.#paused.has(nodeId)) this.#giveBack(nodeId);
  }

  #giveBack(nodeId: number): void {
    // first: requests that waited are served on the event loop, and must know that threads serve the file too
    const node = this.#tree.byId(nodeId);
    if (node !== undefined) this.#serveByThreads(node.file);
    this.#dispatcher.resume(nodeId);
  }

  setLeaving(nodeId: number, leaving: boolean): boolean {
    const node = this.#tree.byId(nodeId);
    if (node === undefined) return false;
    node.leaving = leaving;
    return node.lookups !== 0;
  }

  async pause(nodeId: number): Promise<void> {
    this.#paused.add(nodeId);
    // first the dispatcher: it gets the requests as soon as threads stop serving the file
    const paused = this.#dispatcher.pause(nodeId);
    await this.#withdraw(nodeId);
    await paused;
  }

  resume(nodeId: number): void {
    this.#paused.delete(nodeId);
    // a disk that hangs is given back to the threads when it works again
    if (!this.#stuck.has(nodeId)) this.#giveBack(nodeId);
  }

  /** No thread has the window of a paused file; `resume` gives them the new one. */
  async swap(nodeId: number, { disk, bytesFd, isSameImage }: Parameters<Transport['swap']>[1]): Promise<void> {
    const node = this.#tree.byId(nodeId);
    if (node === undefined) return;
    if (!isSameImage) node.mapId = null;
    node.file = { ...node.file, disk, bytesFd: bytesFd ?? null };
    await this.#noteWriter(node.file);
  }

  noSuccessor(): void {
    this.#mapped.onlyMemory();
    for (const nodeId of this.#threaded.keys()) {
      const node = this.#tree.byId(nodeId);
      if (node !== undefined) this.#serveByThreads(node.file);
    }
  }

  names(): Promise<NamesOfFile[]> {
    return this.#dispatcher.names();
  }

  oldestNameReadMs(): number {
    return this.#dispatcher.oldestNameReadMs();
  }

  makeKernelForget(nodeId: number): void {
    const node = this.#tree.byId(nodeId);
    if (node !== undefined) node.makesKernelForget = true;
  }

  async remove(nodeId: number): Promise<void> {
    this.#tree.remove(nodeId);
    this.#paused.delete(nodeId);
    // requests that waited get EIO, as do all later ones
    this.#dispatcher.resume(nodeId);
    await this.#withdraw(nodeId);
    this.#turns.removeWriter(nodeId);
  }
}

function unmapped(window: Window, mayGrow: boolean): ServedWindow {
  const { fd, start, size, kind, readOnly, durable } = window;
  const plain: Window = { fd, start, size, kind, readOnly, durable };
  return {
    window: plain,
    durably: durably(plain),
    canReadNoWait: kind !== 'memory' && canReadNoWait(plain),
    ...{ mappedAt: 0, turns: NO_TURNS, mayGrow },
  };
}

/**
 * Entries limit what is used of a file, so its window has no end. Entries of memory take no credit of the ram limit:
 * what they let threads write in place has no holes.
 */
export function mapOf({ map, start, readOnly }: MapView, size: number): ServedMap {
  const files = map.files.map(({ delta = 0, ...file }) =>
    unmapped({ ...file, start: delta, size: Number.MAX_SAFE_INTEGER }, false),
  );
  return { table: map.table, files, start, size, readOnly };
}

/** Checked once: a file system without RWF_NOWAIT answers EOPNOTSUPP to every such read. */
function canReadNoWait(window: Window): boolean {
  const byte = Buffer.alloc(1);
  return preadNoWait(window.fd, addressOf(byte), 1, Math.max(0, window.start)) !== -E.EOPNOTSUPP;
}
