import { Worker } from 'node:worker_threads';
import { isNonBlocking, setNonBlocking } from '../../../system/libc.js';
import type { Request } from '../protocol/message.js';
import { readingThreads, usualThreads } from '../protocol/thread-counts.js';
import { crashPoint } from '../thread/crash-point.js';
import type { ServedDisk } from '../thread/served-disk.js';
import type { DiskUpdate, ThreadData, ThreadReport } from '../thread/thread.js';
import { createThreadMemory, type ThreadMemory, ThreadWatch } from '../thread/thread-control.js';
import { createTurnMemory, type TurnMemory } from '../thread/write-turns.js';
import { OwnReads } from './own-reads.js';

const LOOK_MS = 250;

/** pause before loading a thread again: package files may be missing for a moment, or memory short */
const LOAD_RETRY_MS = 1000;

/** loading a thread takes a core half as long as a start of Node, and many buses live only for a moment */
const OTHERS_DELAY_MS = 1000;

/** with fewer devices, all belong to threads */
const FEWEST_WITH_OWN = 3;

export interface ThreadEvents {
  /** a request that threads do not serve, read from that device; the receiver owns the bytes */
  request(device: number, bytes: Uint8Array): void;
  /** the same for the first bytes of a buffer that is used again */
  requestIn(device: number, bytes: Uint8Array, length: number): void;
  /** whether threads serve the request */
  isForThreads(request: Request): boolean;
  /** how many requests the main thread has not answered */
  underWay(): number;
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

export class Threads {
  readonly #workers: Worker[] = [];
  readonly #watch: ThreadWatch;
  readonly #memory: ThreadMemory;
  /** where threads announce what they write */
  readonly turnMemory: TurnMemory;
  readonly #allFds: readonly number[];
  readonly #deviceFds: readonly number[];
  readonly #ownReads: OwnReads | null;
  readonly #ledgerFd: number;
  readonly #statsFd: number;
  readonly #events: ThreadEvents;
  readonly #disks = new Map<number, ServedDisk>();
  /** resolves when enough threads are loaded to begin; they wait for a permit. Rejects if they cannot be loaded */
  readonly loaded: Promise<void>;
  #becameLoaded: () => void = () => {};
  #cannotLoad: (error: Error) => void = () => {};
  #isFailureTold = false;
  #loading = 0;
  #loaded = 0;

  /**
   * Loads the reading threads; `open` loads the others. One thread for each device descriptor but the last, which the
   * event loop reads.
   */
  constructor(deviceFds: readonly number[], ledgerFd: number, statsFd: number, events: ThreadEvents) {
    this.#allFds = deviceFds;
    this.#deviceFds = deviceFds.length < FEWEST_WITH_OWN ? deviceFds : deviceFds.slice(0, -1);
    this.#ledgerFd = ledgerFd;
    this.#statsFd = statsFd;
    this.#events = events;
    this.#memory = createThreadMemory(this.#deviceFds.length);
    this.#watch = new ThreadWatch(this.#memory, this.#deviceFds.length);
    this.turnMemory = createTurnMemory(this.#deviceFds.length);
    this.#ownReads = deviceFds === this.#deviceFds ? null : this.#makeOwnReads();
    this.loaded = new Promise((resolve, reject) => {
      this.#becameLoaded = resolve;
      this.#cannotLoad = reject;
    });
    this.#loading = this.#readers();
    for (let thread = 0; thread < this.#readers(); thread++) {
      this.#load(thread, {
        loaded: () => --this.#loading === 0 && this.#becameLoaded(),
        failed: (error) => this.#cannotLoad(error),
      });
    }
  }

  /**
   * Lets the threads read. Call once, when no other server reads: until then the device flags belong to that server.
   */
  open(): void {
    if (crashPoint !== null) crashPoint('start', 0);
    const isApart = areApart(this.#allFds);
    if (isApart) this.#ownReads?.begin();
    this.#watch.permit(this.#readers(), isApart);
    setTimeout(() => this.#loadOthers(this.#readers()), OTHERS_DELAY_MS);
    setInterval(() => this.#look(), LOOK_MS).unref();
  }

  #makeOwnReads(): OwnReads {
    const { requestIn, isForThreads, underWay } = this.#events;
    const device = this.#allFds.length - 1;
    return new OwnReads({
      device,
      deviceFd: this.#allFds[device] as number,
      watch: this.#watch,
      post: (thread, request) => this.#workers[thread]?.postMessage(request),
      threads: () => this.#loaded,
      serve: (bytes, length) => requestIn(device, bytes, length),
      ...{ isForThreads, underWay },
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

  /** Loads one after another: they replace threads that wait for a disk, and must not slow down a client's start. */
  #loadOthers(thread: number): void {
    const usual = Math.min(this.#deviceFds.length, usualThreads());
    if (thread >= usual || thread !== this.#workers.length) return;
    this.#load(thread, {
      loaded: () => this.#loadOthers(thread + 1),
      failed: (error) => {
        this.#tellFailure(error);
        setTimeout(() => this.#loadOthers(thread), LOAD_RETRY_MS);
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

  #load(thread: number, told: { loaded(): void; failed(error: Error): void }): void {
    let worker: Worker;
    try {
      worker = this.#start(thread);
    } catch (error) {
      return told.failed(error as Error);
    }
    let isLoaded = false;
    worker.on('message', (report: ThreadReport) => {
      if (report.kind !== 'loaded') return this.#hear(report);
      isLoaded = true;
      this.#loaded++;
      told.loaded();
    });
    worker.on('error', (reason) => {
      const error = reason instanceof Error ? reason : new Error(String(reason));
      if (isLoaded) return this.#events.failed(error);
      this.#workers.splice(this.#workers.indexOf(worker), 1);
      told.failed(error);
    });
    for (const [nodeId, served] of this.#disks) worker.postMessage({ nodeId, served } satisfies DiskUpdate);
    this.#workers.push(worker);
    // the new thread then sees another version at its first look, and takes its messages
    if (this.#disks.size > 0) this.#watch.announce();
  }

  /** @throws Error if the system cannot create a thread */
  #start(thread: number): Worker {
    const deviceFd = this.#deviceFds[thread] as number;
    const [ledgerFd, statsFd, memory, turnMemory] = [this.#ledgerFd, this.#statsFd, this.#memory, this.turnMemory];
    return new Worker(new URL('../thread/thread.js', import.meta.url), {
      workerData: { thread, deviceFd, ledgerFd, statsFd, memory, turnMemory } satisfies ThreadData,
      // a thread needs almost no heap; without limits each reserves tens of megabytes
      resourceLimits: { maxYoungGenerationSizeMb: 1, maxOldGenerationSizeMb: 24 },
    });
  }

  #hear(report: Exclude<ThreadReport, { kind: 'loaded' }>): void {
    if (report.kind === 'request') {
      this.#events.request(report.device, report.bytes);
      if (report.hasLent) this.#ownReads?.handedOn();
    } else if (report.kind === 'memory-wanted') this.#events.memoryWanted(report.nodeId);
    else if (report.kind === 'mapped') this.#events.mapped();
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
