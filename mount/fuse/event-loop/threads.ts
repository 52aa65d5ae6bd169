import type { Worker } from 'node:worker_threads';
import { isNonBlocking, setNonBlocking } from '../../../system/libc.js';
import type { Request } from '../protocol/message.js';
import { readingThreads, usualThreads } from '../protocol/thread-counts.js';
import { crashPoint } from '../thread/crash-point.js';
import type { RequestMemory } from '../thread/request-memory.js';
import type { ServedDisk } from '../thread/served-disk.js';
import type { DiskUpdate, RequestPlace, ThreadReport } from '../thread/thread.js';
import { type ThreadMemory, ThreadWatch } from '../thread/thread-control.js';
import type { TurnMemory } from '../thread/write-turns.js';
import {
  type BegunThreads,
  beginThreads,
  type DevicesAndFiles,
  devicesOfThreads,
  StartedThread,
} from './begin-threads.js';
import { OwnReads } from './own-reads.js';

const LOOK_MS = 250;

/** pause before loading a thread again: package files may be missing for a moment, or memory short */
const LOAD_RETRY_MS = 1000;

/**
 * Loading a thread takes a core half as long as a start of Node, and many buses live only for a moment. So a server begins
 * with one thread. Those that read with it are loaded when the first client of the bus has its answer.
 */
const READERS_DELAY_MS = 500;

export interface ThreadEvents {
  /** a request that threads do not serve, read from that device; the receiver owns the bytes, or the place */
  request(device: number, bytes: Uint8Array | RequestPlace): void;
  /** the same for the first bytes of a buffer that is used again */
  requestIn(device: number, bytes: Uint8Array, length: number): void;
  /** whether threads serve the request */
  isForThreads(request: Request): boolean;
  /** how many requests the main thread has not answered, and how long its reads and writes take on average */
  underWay(): number;
  answerMs(): number;
  /** see growth.ts */
  memoryWanted(nodeId: number): void;
  /** large writes to mapped memory have begun; see mapped-windows.ts */
  mapped(): void;
  /** requests of these nodes hang, and threads are scarce: give them no more threads until `withdraw` resolves */
  stuck(nodeIds: ReadonlySet<number>): void;
  gone(errno: string): void;
  /** a thread ended with an error: the caller must not go on */
  failed(error: Error): void;
}

interface LoadListener {
  loaded(): void;
  failed(error: Error): void;
}

export class Threads {
  readonly #workers: Worker[] = [];
  readonly #watch: ThreadWatch;
  readonly #memory: ThreadMemory;
  /** where threads announce what they write */
  readonly turnMemory: TurnMemory;
  readonly requestMemory: RequestMemory;
  readonly #allFds: readonly number[];
  readonly #deviceFds: readonly number[];
  readonly #ownReads: OwnReads | null;
  readonly #ledgerFd: number;
  readonly #statsFd: number;
  readonly #events: ThreadEvents;
  readonly #disks = new Map<number, ServedDisk>();
  /** resolves when a thread is loaded; it waits for a permit. Rejects if it cannot be loaded */
  readonly loaded: Promise<void>;
  #isFailureTold = false;
  #loaded = 0;

  /** @param begun the first thread, if it was started already. `open` loads the others. */
  constructor({ deviceFds, ledgerFd, statsFd }: DevicesAndFiles, events: ThreadEvents, begun?: BegunThreads) {
    const { memory, turnMemory, requestMemory, first } = begun ?? beginThreads({ deviceFds, ledgerFd, statsFd });
    this.#allFds = deviceFds;
    this.#deviceFds = devicesOfThreads(deviceFds);
    this.#ledgerFd = ledgerFd;
    this.#statsFd = statsFd;
    this.#events = events;
    this.#memory = memory;
    this.#watch = new ThreadWatch(memory, this.#deviceFds.length);
    this.turnMemory = turnMemory;
    this.requestMemory = requestMemory;
    this.#ownReads = deviceFds === this.#deviceFds ? null : this.#makeOwnReads();
    this.loaded = new Promise((resolve, reject) => {
      this.#take(first, { loaded: resolve, failed: reject });
    });
  }

  /**
   * Lets the threads read. Call once, when no other server reads: until then the device flags belong to that server.
   */
  open(): void {
    if (crashPoint !== null) crashPoint('start', 0);
    const isApart = areApart(this.#allFds);
    if (isApart) this.#ownReads?.begin();
    this.#watch.permit(this.#readers(), isApart);
    // a server that takes over a bus has clients already
    const delayMs = this.#disks.size > 0 ? 0 : READERS_DELAY_MS;
    setTimeout(() => this.#loadNext(), delayMs);
    setInterval(() => this.#look(), LOOK_MS).unref();
  }

  #makeOwnReads(): OwnReads {
    const { requestIn, isForThreads, underWay, answerMs } = this.#events;
    const device = this.#allFds.length - 1;
    return new OwnReads({
      device,
      deviceFd: this.#allFds[device] as number,
      watch: this.#watch,
      post: (thread, request) => this.#workers[thread]?.postMessage(request),
      threads: () => this.#loaded,
      serve: (bytes, length) => requestIn(device, bytes, length),
      ...{ isForThreads, underWay, answerMs },
    });
  }

  /**
   * A disk that hangs must not take the threads from other disks. The permit of a thread that hangs goes to another
   * thread. If too few threads are left, the vbds whose requests hang get no more threads, and a spare one is loaded.
   */
  #look(): void {
    const standstills = this.#watch.standstills();
    for (const { thread } of standstills) this.#watch.takePermitFrom(thread);
    if (this.#loaded - standstills.length >= this.#readers()) return;
    const nodeIds = new Set(standstills.map(({ nodeId }) => nodeId).filter((nodeId) => this.#disks.has(nodeId)));
    if (nodeIds.size > 0) this.#events.stuck(nodeIds);
    if (this.#loaded === this.#workers.length && this.#loaded < this.#deviceFds.length)
      this.#load(this.#loaded, { loaded: () => {}, failed: (error) => this.#tellFailure(error) });
  }

  /** Loads the other readers one after another: they must not slow down a client's start. */
  #loadNext(): void {
    const later = (delayMs: number): void => void setTimeout(() => this.#loadNext(), delayMs);
    const thread = this.#workers.length;
    if (thread >= this.#readers()) return this.#letAsk();
    // `look` loads one: its number must be known first
    if (this.#loaded < thread) return later(LOOK_MS);
    this.#load(thread, {
      loaded: () => this.#loadNext(),
      failed: (error) => {
        this.#tellFailure(error);
        later(LOAD_RETRY_MS);
      },
    });
  }

  /** Each of the others takes 10 MB, and many buses never need them: each is loaded when all threads wait for disks. */
  #letAsk(): void {
    if (this.#workers.length < Math.min(this.#deviceFds.length, usualThreads())) this.#watch.letAsk(this.#readers());
  }

  #loadWanted(): void {
    const askLater = (delayMs: number): void => void setTimeout(() => this.#letAsk(), delayMs);
    if (this.#loaded < this.#workers.length) return askLater(LOOK_MS);
    this.#load(this.#workers.length, {
      loaded: () => this.#letAsk(),
      failed: (error) => {
        this.#tellFailure(error);
        askLater(LOAD_RETRY_MS);
      },
    });
  }

  /** Only logs it: the existing threads go on. */
  #tellFailure(error: Error): void {
    if (!this.#isFailureTold) console.error('another thread cannot be loaded; trying again:', error);
    this.#isFailureTold = true;
  }

  #readers(): number {
    return Math.min(readingThreads(), this.#deviceFds.length);
  }

  #load(thread: number, told: LoadListener): void {
    const deviceFd = this.#deviceFds[thread] as number;
    const files = { deviceFd, ledgerFd: this.#ledgerFd, statsFd: this.#statsFd };
    const { turnMemory, requestMemory } = this;
    this.#take(new StartedThread({ thread, ...files, memory: this.#memory, turnMemory, requestMemory }), told);
  }

  #take(started: StartedThread, told: LoadListener): void {
    const { worker } = started;
    if (worker !== null) {
      for (const [nodeId, served] of this.#disks) worker.postMessage({ nodeId, served } satisfies DiskUpdate);
      this.#workers.push(worker);
      // the new thread then sees another version at its first look, and takes its messages
      if (this.#disks.size > 0) this.#watch.announce();
    }
    let isLoaded = false;
    started.listen({
      hear: (report) => {
        if (report.kind !== 'loaded') return this.#hear(report);
        isLoaded = true;
        this.#loaded++;
        told.loaded();
      },
      failed: (error) => {
        if (isLoaded) return this.#events.failed(error);
        if (worker !== null) this.#workers.splice(this.#workers.indexOf(worker), 1);
        told.failed(error);
      },
    });
  }

  #hear(report: Exclude<ThreadReport, { kind: 'loaded' }>): void {
    if (report.kind === 'request') {
      this.#events.request(report.device, report.bytes);
      if (report.hasLent) this.#ownReads?.handedOn();
    } else if (report.kind === 'memory-wanted') this.#events.memoryWanted(report.nodeId);
    else if (report.kind === 'mapped') this.#events.mapped();
    else if (report.kind === 'thread-wanted') this.#loadWanted();
    else this.#events.gone(report.errno);
  }

  /** Lets threads serve this disk, from the next request on. */
  serve(nodeId: number, served: ServedDisk): void {
    this.#tell({ nodeId, served });
  }

  /**
   * Takes the disk from the threads; its requests go to the main thread. Resolves when no thread uses it any more.
   */
  async withdraw(nodeId: number): Promise<void> {
    await this.#watch.awaitUnused(this.#tell({ nodeId, served: null }), nodeId);
  }

  /** Resolves when no thread still serves a request of these nodes that it began before the call. */
  async quiesce(nodeIds: ReadonlySet<number>): Promise<void> {
    await this.#watch.awaitPast(nodeIds);
  }

  /** Whether threads have written to mapped memory since the last call. */
  takeMapped(): boolean {
    return this.#watch.takeMapped();
  }

  #tell(update: DiskUpdate): number {
    if (update.served === null) this.#disks.delete(update.nodeId);
    else this.#disks.set(update.nodeId, update.served);
    for (const worker of this.#workers) worker.postMessage(update);
    return this.#watch.announce();
  }
}

/**
 * Whether each descriptor has an open file description of its own: a flag that one thread sets (O_NONBLOCK) then does
 * not affect another. Afterwards all of them are blocking, even if a server that died had left some non-blocking.
 */
export function areApart(fds: readonly number[]): boolean {
  const [first, ...others] = fds;
  if (first === undefined) return true;
  for (const fd of fds) setNonBlocking(fd, false);
  setNonBlocking(first, true);
  const apart = !others.some(isNonBlocking);
  setNonBlocking(first, false);
  return apart;
}
