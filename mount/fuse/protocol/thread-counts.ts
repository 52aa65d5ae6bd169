/** How many threads serve a bus, and so how many clones of /dev/fuse its keeper opens. */
import { availableParallelism } from 'node:os';

/** each costs 10 MB; with six, cold reads were not measurably faster */
const WAITING_THREADS = 4;
/** take the places of threads that hang; they are loaded only then */
const SPARE_THREADS = 8;

/** How many threads may read the device at one time: more than cores only costs switches while all is in memory. */
export function readingThreads(): number {
  return Math.min(16, Math.max(2, availableParallelism()));
}

/** How many threads there are where no disk hangs: the others stand in for those that wait for a disk. */
export function usualThreads(): number {
  return readingThreads() + WAITING_THREADS;
}

/** How many threads there may ever be. */
export function totalThreads(): number {
  return usualThreads() + SPARE_THREADS;
}
