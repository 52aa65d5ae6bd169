/**
 * Reads the log of a bus from its files, whether the bus runs or not. The log of a bus that has ended is kept apart
 * (runtime/ended-logs.ts).
 */
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError } from '../../drivers/errors.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { endedLogDir } from '../runtime/ended-logs.js';
import { isKeeperAlive } from '../runtime/watch-bus-lock.js';
import { isStill, type LogLine, LogTail, openIfThere, readAll, splitLines } from './log-tail.js';

export type { LogRecord } from '../runtime/log-line.js';
export type { LogLine } from './log-tail.js';

/** The log of a bus. */
export interface BusLog {
  /** oldest first */
  readonly lines: readonly LogLine[];
  /** the bus does not run: this is the log of its last run */
  readonly isLastRun: boolean;
}

const POLL_MS = 100;
/** how often to look whether the processes of the bus have died without a word */
const LOOK_EVERY = 10;

/** All lines of the log, of the last run if the bus does not run. @throws FusetapError NOT_FOUND if there is no log */
export function readLog(place: BusPlace): BusLog {
  for (const directory of [place.stateDir, endedLogDir(place)]) {
    const parts = ['log.1', 'log'].map((name) => readAll(place, join(directory, name)));
    const found = parts.filter((part) => part !== null);
    const isLastRun = directory !== place.stateDir;
    if (found.length > 0) return { lines: splitLines(Buffer.concat(found)), isLastRun };
  }
  throw noLog(place);
}

/**
 * All lines of the log, then each new line, until the bus has ended or `signal` is aborted. Its last event is `ended`,
 * unless the processes of the bus were killed. The file stays open, so what is written until the end is read even if
 * it is removed.
 * @returns whether the bus has died: its processes are gone, and its files are still there
 * @throws as readLog
 */
export async function* followLog(place: BusPlace, signal?: AbortSignal): AsyncGenerator<LogLine, boolean> {
  const path = join(place.stateDir, 'log');
  const fd = openIfThere(place, path);
  if (fd === null) {
    yield* readLog(place).lines;
    return false;
  }
  try {
    yield* splitLines(readAll(place, `${path}.1`) ?? Buffer.alloc(0));
    const tail = new LogTail(place, path, fd);
    for (let look = 1; !signal?.aborted; look++) {
      // first look, then read: what was written before the end is read
      const isGone = !isStill(path, fd);
      const isDead = !isGone && look % LOOK_EVERY === 0 && !(await isKeeperAlive(place));
      yield* tail.take();
      // a keeper that has just ended removes its files before its lock is free
      if (isGone || isDead) return isDead && isStill(path, fd);
      await delay(POLL_MS, undefined, { signal }).catch(() => {});
    }
    return false;
  } finally {
    closeSync(fd);
  }
}

function noLog(place: BusPlace): FusetapError {
  return new FusetapError('NOT_FOUND', `no log of bus ${place.name}: nothing in ${place.stateDir}`, {
    hint: 'fusetap ls lists the running buses; the logs of the last 20 that have ended are kept',
  });
}
