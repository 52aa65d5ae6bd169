/**
 * Calls that wait for a Ceph cluster, without making anything else wait. librados has no other form of them, and they may
 * sleep for ever. libuv's pool has four threads, which all vbds of a bus use: so each disk has a thread of its own.
 */
import { Worker } from 'node:worker_threads';
import { type ClusterCalls, ClusterError, type Step } from './cluster-calls.js';

export interface ClusterRequest {
  readonly number: number;
  readonly call: keyof ClusterCalls;
  readonly argument: unknown;
}

export interface ClusterAnswer {
  readonly number: number;
  readonly result?: unknown;
  readonly failed?: { readonly step: Step; readonly errno: number };
  /** a fault of ours */
  readonly broken?: string;
}

interface Waiting {
  resolve(result: unknown): void;
  reject(error: Error): void;
}

export class Cluster {
  readonly #waiting = new Map<number, Waiting>();
  #worker: Worker | null = null;
  #next = 1;

  /** Makes a call in the thread, after all calls before it. @throws ClusterError */
  call<Name extends keyof ClusterCalls>(
    name: Name,
    argument: Parameters<ClusterCalls[Name]>[0],
  ): Promise<ReturnType<ClusterCalls[Name]>> {
    this.#worker ??= this.#start();
    const number = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(number, { resolve: resolve as Waiting['resolve'], reject });
      // a process must not end while a call is under way
      this.#worker?.ref();
      this.#worker?.postMessage({ number, call: name, argument } satisfies ClusterRequest);
    });
  }

  /** Ends the thread; it must have nothing to do. */
  async end(): Promise<void> {
    const worker = this.#worker;
    this.#worker = null;
    await worker?.terminate();
  }

  #start(): Worker {
    const worker = new Worker(new URL('./cluster-worker.cjs', import.meta.url), {
      resourceLimits: { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 2 },
    });
    worker.on('message', (answer: ClusterAnswer) => this.#answered(answer));
    worker.on('error', (error) => {
      // it has ended; the next call starts another one
      if (this.#worker === worker) this.#worker = null;
      for (const { reject } of this.#waiting.values()) reject(error);
      this.#waiting.clear();
    });
    worker.unref();
    return worker;
  }

  #answered({ number, result, failed, broken }: ClusterAnswer): void {
    const waiting = this.#waiting.get(number);
    this.#waiting.delete(number);
    if (this.#waiting.size === 0) this.#worker?.unref();
    if (failed !== undefined) waiting?.reject(new ClusterError(failed.step, failed.errno));
    else if (broken !== undefined) waiting?.reject(new Error(broken));
    else waiting?.resolve(result);
  }
}
