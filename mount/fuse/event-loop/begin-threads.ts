/**
 * Starts threads. Apart from threads.ts, which needs much more code: so a server's first thread can load while the
 * server does.
 */
import { Worker } from 'node:worker_threads';
import { createRequestMemory, type RequestMemory } from '../thread/request-memory.js';
import type { ThreadData, ThreadReport } from '../thread/thread.js';
import { createThreadMemory, type ThreadMemory } from '../thread/thread-control.js';
import { createTurnMemory, type TurnMemory } from '../thread/write-turns.js';

/** with fewer devices, all belong to threads */
const FEWEST_WITH_OWN = 3;

export interface DevicesAndFiles {
  /** /dev/fuse as mounted, and its clones */
  readonly deviceFds: readonly number[];
  readonly ledgerFd: number;
  readonly statsFd: number;
}

/** What all threads share, and the first of them. */
export interface BegunThreads {
  readonly memory: ThreadMemory;
  /** where threads announce what they write */
  readonly turnMemory: TurnMemory;
  /** where threads hand on large requests */
  readonly requestMemory: RequestMemory;
  readonly first: StartedThread;
}

/** One thread for each descriptor but the last, which the event loop reads. */
export function devicesOfThreads(deviceFds: readonly number[]): readonly number[] {
  return deviceFds.length < FEWEST_WITH_OWN ? deviceFds : deviceFds.slice(0, -1);
}

export function beginThreads({ deviceFds, ledgerFd, statsFd }: DevicesAndFiles): BegunThreads {
  const ownFds = devicesOfThreads(deviceFds);
  const memory = createThreadMemory(ownFds.length);
  const turnMemory = createTurnMemory(ownFds.length);
  const requestMemory = createRequestMemory();
  const deviceFd = ownFds[0] as number;
  return {
    memory,
    turnMemory,
    requestMemory,
    first: new StartedThread({ thread: 0, deviceFd, ledgerFd, statsFd, memory, turnMemory, requestMemory }),
  };
}

export interface ThreadListener {
  hear(report: ThreadReport): void;
  failed(error: Error): void;
}

/** A thread that may be loading. Keeps what it reports until somebody listens. */
export class StartedThread {
  /** null if the system cannot create it: the listener is told why */
  readonly worker: Worker | null;
  #listener: ThreadListener | null = null;
  readonly #kept: ((listener: ThreadListener) => void)[] = [];

  constructor(data: ThreadData) {
    this.worker = this.#create(data);
    this.worker?.on('message', (report: ThreadReport) => this.#tell((listener) => listener.hear(report)));
    this.worker?.on('error', (reason) => {
      const error = reason instanceof Error ? reason : new Error(String(reason));
      this.#tell((listener) => listener.failed(error));
    });
  }

  listen(listener: ThreadListener): void {
    this.#listener = listener;
    for (const tell of this.#kept.splice(0)) tell(listener);
  }

  #create(data: ThreadData): Worker | null {
    try {
      return new Worker(new URL('../thread/thread.cjs', import.meta.url), {
        workerData: data,
        // a thread needs almost no heap; without limits each reserves tens of megabytes
        resourceLimits: { maxYoungGenerationSizeMb: 1, maxOldGenerationSizeMb: 24 },
      });
    } catch (error) {
      this.#kept.push((listener) => listener.failed(error as Error));
      return null;
    }
  }

  #tell(tell: (listener: ThreadListener) => void): void {
    if (this.#listener === null) this.#kept.push(tell);
    else tell(this.#listener);
  }
}
