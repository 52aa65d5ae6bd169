/**
 * Reads the log of a bus from its files, whether the bus runs or not. The log of a bus that has ended is kept apart
 * (runtime/ended-logs.ts).
 */
import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError, toFusetapError } from '../../drivers/errors.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { endedLogDir } from '../runtime/ended-logs.js';
import { describeRecord, type LogRecord, parseLine } from '../runtime/log-line.js';
import { isKeeperAlive } from '../runtime/watch-bus-lock.js';

export type { LogRecord } from '../runtime/log-line.js';

/** A line of the log: its record, and the text for people. */
export interface LogLine {
  readonly text: string;
  readonly record: LogRecord;
}

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
    const tail = new Tail(place, path, fd);
    for (let look = 1; !signal?.aborted; look++) {
      // first look, then read: what was written before the end is read
      const isGone = !isStill(path, fd);
      const isDead = !isGone && look % LOOK_EVERY === 0 && !(await isKeeperAlive(place));
      yield* splitLines(tail.take());
      // a keeper that has just ended removes its files before its lock is free
      if (isGone || isDead) return isDead && isStill(path, fd);
      await delay(POLL_MS, undefined, { signal }).catch(() => {});
    }
    return false;
  } finally {
    closeSync(fd);
  }
}

/** The end of a log that grows, and that may be moved to log.1 and begin anew. */
class Tail {
  readonly #place: BusPlace;
  readonly #path: string;
  readonly #fd: number;
  #position = 0;
  #unfinished: Buffer = Buffer.alloc(0);

  constructor(place: BusPlace, path: string, fd: number) {
    this.#place = place;
    this.#path = path;
    this.#fd = fd;
  }

  /** The complete lines that were added since the last call. */
  take(): Buffer {
    const bytes = Buffer.concat([this.#unfinished, this.#added()]);
    const end = bytes.lastIndexOf('\n') + 1;
    this.#unfinished = bytes.subarray(end);
    return bytes.subarray(0, end);
  }

  #added(): Buffer {
    let moved: Buffer = Buffer.alloc(0);
    if (fstatSync(this.#fd).size < this.#position) {
      // the rest of the old lines is in log.1
      moved = readAll(this.#place, `${this.#path}.1`, this.#position) ?? moved;
      this.#position = 0;
    }
    const added = readFrom(this.#fd, this.#position);
    this.#position += added.length;
    return Buffer.concat([moved, added]);
  }
}

/** Whether the path still leads to the open file. */
function isStill(path: string, fd: number): boolean {
  const named = statSync(path, { throwIfNoEntry: false });
  const { dev, ino } = fstatSync(fd);
  return named?.ino === ino && named.dev === dev;
}

function splitLines(bytes: Buffer): LogLine[] {
  const lines = bytes.toString('utf8').split('\n');
  const records = lines.filter((line) => line !== '').map(parseLine);
  return records.map((record) => ({ text: describeRecord(record), record }));
}

/** The bytes of the file from `position` on; null if there is no such file. */
function readAll(place: BusPlace, path: string, position = 0): Buffer | null {
  const fd = openIfThere(place, path);
  if (fd === null) return null;
  try {
    return readFrom(fd, position);
  } finally {
    closeSync(fd);
  }
}

function readFrom(fd: number, position: number): Buffer {
  const bytes = Buffer.alloc(Math.max(0, fstatSync(fd).size - position));
  return bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, position));
}

function openIfThere(place: BusPlace, path: string): number | null {
  try {
    return openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw toFusetapError(error, `cannot read the log of bus ${place.name}: ${(error as Error).message}`, { path });
  }
}

function noLog(place: BusPlace): FusetapError {
  return new FusetapError('NOT_FOUND', `no log of bus ${place.name}: nothing in ${place.stateDir}`, {
    hint: 'fusetap ls lists the running buses; the logs of the last 20 that have ended are kept',
  });
}
