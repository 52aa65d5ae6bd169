/** The end of a log, line by line, while it grows and is shortened (mount/runtime/log.ts). */
import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { toFusetapError } from '../../drivers/errors.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { describeRecord, type LogRecord, parseLine } from '../runtime/log-line.js';

/** A line of the log: its record, and the text for people. */
export interface LogLine {
  readonly text: string;
  readonly record: LogRecord;
}

/** The end of a log that grows, and that may be moved to log.1 and begin anew. */
export class LogTail {
  readonly #place: Pick<BusPlace, 'name'>;
  readonly #path: string;
  readonly #fd: number;
  #position = 0;
  #unfinished: Buffer = Buffer.alloc(0);

  constructor(place: Pick<BusPlace, 'name'>, path: string, fd: number) {
    this.#place = place;
    this.#path = path;
    this.#fd = fd;
  }

  /** Leaves out what is there already, but for whole lines in its last bytes. @returns how many bytes it leaves out */
  skip(butBytes = 0): number {
    const { size } = fstatSync(this.#fd);
    this.#position = Math.max(0, size - butBytes);
    if (this.#position === 0 || butBytes === 0) return this.#position;
    this.#position += readFrom(this.#fd, this.#position).indexOf('\n') + 1;
    return this.#position;
  }

  /** The complete lines that were added since the last call. */
  take(): LogLine[] {
    const bytes = Buffer.concat([this.#unfinished, this.#added()]);
    const end = bytes.lastIndexOf('\n') + 1;
    this.#unfinished = bytes.subarray(end);
    return splitLines(bytes.subarray(0, end));
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

/** The lines of a log. */
export function splitLines(bytes: Buffer): LogLine[] {
  const lines = bytes.toString('utf8').split('\n');
  const records = lines.filter((line) => line !== '').map(parseLine);
  return records.map((record) => ({ text: describeRecord(record), record }));
}

/** The bytes of the file from `position` on; null if there is no such file. */
export function readAll(place: Pick<BusPlace, 'name'>, path: string, position = 0): Buffer | null {
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

/** Null if there is no such file. */
export function openIfThere(place: Pick<BusPlace, 'name'>, path: string): number | null {
  try {
    return openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw toFusetapError(error, `cannot read the log of bus ${place.name}: ${(error as Error).message}`, { path });
  }
}

/** Whether the path still leads to the open file. */
export function isStill(path: string, fd: number): boolean {
  const named = statSync(path, { throwIfNoEntry: false });
  const { dev, ino } = fstatSync(fd);
  return named?.ino === ino && named.dev === dev;
}
