/** Tries many mutants of the images of a format, and finds those that fail, hang, or end the thread. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { FuzzFormat } from './images.js';
import type { FuzzMessage, FuzzWork } from './worker.js';

/** a mutant that takes longer hangs; usually it takes some milliseconds */
const LIMIT_MS = 30_000;
const MOST_HEAP_MIB = 512;
const MOST_FAULTS = 20;

export interface FuzzOptions {
  readonly format: FuzzFormat;
  readonly firstSeed: number;
  /** default: no limit */
  readonly mutants?: number;
  /** default: no limit */
  readonly seconds?: number;
}

export interface FuzzReport {
  mutants: number;
  /** mutants of which something was refused */
  refused: number;
  readonly faults: string[];
}

export async function fuzz({ format, firstSeed, mutants, seconds }: FuzzOptions): Promise<FuzzReport> {
  const directory = await mkdtemp(join(tmpdir(), 'fuzz-'));
  const report: FuzzReport = { mutants: 0, refused: 0, faults: [] };
  const deadline = performance.now() + (seconds ?? Number.POSITIVE_INFINITY) * 1000;
  let next = firstSeed;
  try {
    // a mutant that hangs or kills its thread is passed over, in a new thread
    for (let isOver = false; !isOver; ) {
      const left = mutants === undefined ? null : firstSeed + mutants - next;
      const own = await mkdtemp(join(directory, 'images-'));
      const work: FuzzWork = { format, directory: own, firstSeed: next, mutants: left };
      const last = await runThread(
        work,
        report,
        () => performance.now() > deadline || report.faults.length >= MOST_FAULTS,
      );
      isOver = last === null;
      next = (last ?? next) + 1;
    }
    return report;
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** @returns null if all is done, else the seed at which the thread ended or hung */
async function runThread(work: FuzzWork, report: FuzzReport, isEnough: () => boolean): Promise<number | null> {
  const limits = { resourceLimits: { maxOldGenerationSizeMb: MOST_HEAP_MIB } };
  const worker = new Worker(new URL('./worker.js', import.meta.url), { workerData: work, ...limits });
  let seed = work.firstSeed - 1;
  let watch: NodeJS.Timeout | undefined;
  const ended = new Promise<number | null>((resolve) => {
    const fail = (what: string): void => {
      report.faults.push(`${work.format}, mutant ${seed}: ${what}`);
      resolve(seed);
    };
    const watchOut = (): void => {
      clearTimeout(watch);
      watch = setTimeout(() => fail(`it has not ended after ${LIMIT_MS / 1000} s`), LIMIT_MS);
    };
    worker.on('message', (message: FuzzMessage) => {
      watchOut();
      if (message.kind === 'over' || isEnough()) return resolve(null);
      if (message.kind === 'begins') seed = message.seed;
      else report.mutants++;
      if (message.kind === 'ended' && message.refused > 0) report.refused++;
      if (message.kind === 'fault') report.faults.push(message.text);
    });
    worker.on('error', (error) => fail(`the thread ended: ${String(error)}`));
    worker.on('exit', () => fail('the thread ended: a call never settled'));
    watchOut();
  });
  const last = await ended;
  clearTimeout(watch);
  worker.removeAllListeners();
  await worker.terminate();
  return last;
}
