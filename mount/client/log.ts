/**
 * Reads the log of a bus from its files, whether the bus runs or not.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError, toFusetapError } from '../../drivers/errors.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { describeRecord, type LogRecord, parseLine } from '../runtime/log-line.js';

export type { LogRecord } from '../runtime/log-line.js';

/** A line of the log: its record, and the text for people. */
export interface LogLine {
  readonly text: string;
  readonly record: LogRecord;
}

const POLL_MS = 100;

/** All lines of the log, oldest first. @throws FusetapError NOT_FOUND if there is no log */
export function readLog(place: BusPlace): LogLine[] {
  const parts = ['log.1', 'log'].map((name) => readFrom(place, name, 0));
  const found = parts.filter((part) => part !== null);
  if (found.length === 0) throw noLog(place);
  return splitLines(Buffer.concat(found));
}

/** All lines of the log, then each new line, until the bus has ended or `signal` is aborted. @throws as readLog */
export async function* followLog(place: BusPlace, signal?: AbortSignal): AsyncGenerator<LogLine> {
  const before = readFrom(place, 'log.1', 0);
  let added = readFrom(place, 'log', 0);
  if (added === null) throw noLog(place);
  yield* splitLines(before ?? Buffer.alloc(0));
  let position = added.length;
  let unfinished = Buffer.alloc(0);
  // null: the bus has ended, and its files are removed
  while (added !== null && !signal?.aborted) {
    const bytes = Buffer.concat([unfinished, added]);
    const end = bytes.lastIndexOf('\n') + 1;
    yield* splitLines(bytes.subarray(0, end));
    unfinished = bytes.subarray(end);
    await delay(POLL_MS, undefined, { signal }).catch(() => {});
    added = readFrom(place, 'log', position);
    if (added !== null && added.length === 0 && isShorter(place, position)) {
      // the log was rotated to log.1: first read the rest of the old file
      added = readFrom(place, 'log.1', position) ?? Buffer.alloc(0);
      position = 0;
    } else {
      position += added?.length ?? 0;
    }
  }
}

function splitLines(bytes: Buffer): LogLine[] {
  const lines = bytes.toString('utf8').split('\n');
  const records = lines.filter((line) => line !== '').map(parseLine);
  return records.map((record) => ({ text: describeRecord(record), record }));
}

/** The bytes of the file from `position` on; null if there is no such file. */
function readFrom(place: BusPlace, name: string, position: number): Buffer | null {
  return withFile(place, name, (fd) => {
    const bytes = Buffer.alloc(Math.max(0, fstatSync(fd).size - position));
    return bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, position));
  });
}

function isShorter(place: BusPlace, position: number): boolean {
  return withFile(place, 'log', (fd) => fstatSync(fd).size < position) ?? false;
}

function withFile<Result>(place: BusPlace, name: string, use: (fd: number) => Result): Result | null {
  const path = join(place.stateDir, name);
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw toFusetapError(error, `cannot read the log of bus ${place.name}: ${(error as Error).message}`, { path });
  }
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

function noLog(place: BusPlace): FusetapError {
  return new FusetapError('NOT_FOUND', `no log of bus ${place.name}: nothing in ${place.stateDir}`, {
    hint: 'the log is removed when the bus ends; fusetap ls lists the running buses',
  });
}
