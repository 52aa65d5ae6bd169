/**
 * The worker threads as the main thread sees them: starts them, tells them of windows, hands on what they report.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import type { ServedWindow } from './serve-window.js';
import type { ThreadData, ThreadReport, WindowUpdate } from './thread.js';
import { createThreadMemory, ThreadWatch } from './thread-control.js';

/** How many threads may read the device at one time: more than cores only costs switches while all is in memory. */
export function readingThreads(): number {
  return Math.min(16, Math.max(2, availableParallelism()));
}

/** How many threads there are: the others stand in for those that wait for a disk. */
export function totalThreads(): number {
  return readingThreads() + WAITING_THREADS;
}
const WAITING_THREADS = 6;

export interface ThreadEvents {
  /** a request that is not for a thread; its bytes are the receiver's */
  request(thread: number, bytes: Uint8Array): void;
  gone(errno: string): void;
  /** a thread died of an error: the caller must not go on */
  failed(error: Error): void;
}

export class Threads {
  readonly #workers: Worker[] = [];
  readonly #watch: ThreadWatch;

  /** Starts one thread for each device descriptor; they read as soon as they are up. */
  constructor(deviceFds: readonly number[], ledgerFd: number, events: ThreadEvents) {
    const memory = createThreadMemory(deviceFds.length, Math.min(readingThreads(), deviceFds.length));
    this.#watch = new ThreadWatch(memory, deviceFds.length);
    deviceFds.forEach((deviceFd, thread) => {
      const worker = new Worker(new URL('./thread.js', import.meta.url), {
        workerData: { thread, deviceFd, ledgerFd, memory } satisfies ThreadData,
        // a thread holds next to nothing on its heap; without limits each reserves tens of megabytes
        resourceLimits: { maxYoungGenerationSizeMb: 1, maxOldGenerationSizeMb: 24 },
        stdin: false,
      });
      worker.on('message', (report: ThreadReport) => {
        if (report.kind === 'request') events.request(report.thread, report.bytes);
        else events.gone(report.errno);
      });
      worker.on('error', (error) => events.failed(error instanceof Error ? error : new Error(String(error))));
      this.#workers.push(worker);
    });
  }

  /** From the next request on, threads serve this window. */
  serve(nodeId: number, served: ServedWindow): void {
    this.#tell({ nodeId, served });
  }

  /** Resolves when no thread uses the window any more; its requests now go to the main thread. */
  async withdraw(nodeId: number): Promise<void> {
    await this.#watch.passed(this.#tell({ nodeId, served: null }));
  }

  #tell(update: WindowUpdate): number {
    for (const worker of this.#workers) worker.postMessage(update);
    return this.#watch.announce();
  }
}
