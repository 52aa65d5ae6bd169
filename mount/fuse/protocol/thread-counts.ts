/** How many threads serve a bus, and so how many clones of /dev/fuse its keeper opens. */
import { availableParallelism } from 'node:os';

/**
 * threads for requests that wait for a disk, each loaded when all others wait; each costs 10 MB; with six, cold reads were not
 * measurably faster
 */
const WAITING_THREADS = 4;
/** replace threads that hang; loaded only then */
const SPARE_THREADS = 8;

/** the most threads that read at one time */
const MOST_READERS = 16;
/** the most threads of a server */
export const MOST_THREADS = MOST_READERS + WAITING_THREADS + SPARE_THREADS;

/** How many threads may read the device at one time. More threads than cores only cost switches if all is in memory. */
export function readingThreads(): number {
  return Math.min(MOST_READERS, Math.max(2, availableParallelism()));
}

/** How many threads there are while no disk hangs: the readers, and those that replace threads that wait for a disk. */
export function usualThreads(): number {
  return readingThreads() + WAITING_THREADS;
}

/** How many clones of /dev/fuse a bus has: one for each thread that there can be, and one for the event loop. */
export function deviceClones(): number {
  return usualThreads() + SPARE_THREADS + 1;
}
