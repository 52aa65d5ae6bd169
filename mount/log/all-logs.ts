/**
 * The logs of all buses of a runtime directory: those that run, those that were left by a bus that died, and the last
 * that have ended (mount/runtime/ended-logs.ts). One that follows them also sees buses begin and end.
 *
 *      followLogs ─┬─ every 0.1 s: the names in state/ ──► a new log: all its lines
 *                  ├─ each open log: its new lines ──► moved to ended/, or removed: the last lines, then it is closed
 *                  └─ the files in ended/ that were not seen before: a bus that was quicker
 */
import { closeSync, fstatSync, type Stats, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { listBusNames } from '../runtime/bus-place.js';
import { endedLogDir, listEndedLogs } from '../runtime/ended-logs.js';
import { isStill, type LogLine, LogTail, openIfThere, readAll, splitLines } from './log-tail.js';

const POLL_MS = 100;

/** A line of the log of a bus. */
export interface LineOfBus extends LogLine {
  readonly bus: string;
}

/** The part of a place that a log needs. */
interface LogPlace {
  readonly name: string;
  readonly stateDir: string;
}

/** All lines of all logs, ordered by their times. */
export function readLogs(runtimeDir: string): LineOfBus[] {
  return sortByTime([...ended(runtimeDir), ...running(runtimeDir)].map((place) => linesIn(place)));
}

/** The same, then each new line, also of buses that begin, until the signal is aborted. */
export async function* followLogs(runtimeDir: string, signal: AbortSignal): AsyncGenerator<LineOfBus, void> {
  const logs = new OpenLogs(runtimeDir);
  try {
    while (!signal.aborted) {
      yield* logs.take();
      await delay(POLL_MS, undefined, { signal }).catch(() => {});
    }
  } finally {
    logs.close();
  }
}

/** The logs that are followed, each open as long as its bus has it. */
export class OpenLogs {
  readonly #runtimeDir: string;
  readonly #open = new Map<string, OpenLog>();
  /** the files that were read, so that none is read again when it is moved */
  readonly #seen = new Set<string>();

  readonly #beginBytes: number;

  /** @param beginBytes how much of the end of each log is read when it is found */
  constructor(runtimeDir: string, beginBytes = Number.POSITIVE_INFINITY) {
    this.#runtimeDir = runtimeDir;
    this.#beginBytes = beginBytes;
  }

  /** What was added since the last call, ordered by time. @throws FusetapError if the buses cannot be listed */
  take(): LineOfBus[] {
    // first the rest of those that are known: a bus may have ended, and begun again
    const lines = [...this.#rest(), ...this.#begun()];
    return sortByTime([...lines, ...this.#ended()]);
  }

  close(): void {
    for (const { fd } of this.#open.values()) closeSync(fd);
  }

  #rest(): LineOfBus[][] {
    return [...this.#open].map(([name, { path, fd, tail }]) => {
      // before it is read: what was written until then is read
      const isGone = !(ifReadable(() => isStill(path, fd)) ?? false);
      const lines = withBus(name, ifReadable(() => tail.take()) ?? []);
      if (isGone) {
        closeSync(fd);
        this.#open.delete(name);
      }
      return lines;
    });
  }

  #begun(): LineOfBus[][] {
    return running(this.#runtimeDir).flatMap((place) => {
      if (this.#open.has(place.name)) return [];
      return ifReadable(() => this.#begin(place)) ?? [];
    });
  }

  #begin(place: LogPlace): LineOfBus[][] {
    const log = openLog(place);
    if (log === null) return [];
    try {
      const isWhole = log.tail.skip(this.#beginBytes) === 0;
      const older = isWhole ? splitLines(readAll(place, `${log.path}.1`) ?? Buffer.alloc(0)) : [];
      const lines = [...older, ...log.tail.take()];
      this.#open.set(place.name, log);
      this.#seen.add(inodeOf(fstatSync(log.fd)));
      return [withBus(place.name, lines)];
    } catch (error) {
      closeSync(log.fd);
      throw error;
    }
  }

  /** Logs of buses that had ended before, or that were too quick to be seen running. */
  #ended(): LineOfBus[][] {
    const present = new Set([...this.#open.values()].map(({ fd }) => inodeOf(fstatSync(fd))));
    const lines = ended(this.#runtimeDir).flatMap((place) => {
      const stats = ifReadable(() => statSync(join(place.stateDir, 'log')));
      if (stats !== null) present.add(inodeOf(stats));
      if (stats === null || this.#seen.has(inodeOf(stats))) return [];
      this.#seen.add(inodeOf(stats));
      return [linesIn(place, this.#beginBytes)];
    });
    // the inode of a file that is gone may become that of another log
    for (const inode of this.#seen) if (!present.has(inode)) this.#seen.delete(inode);
    return lines;
  }
}

interface OpenLog {
  readonly path: string;
  readonly fd: number;
  readonly tail: LogTail;
}

function openLog(place: LogPlace): OpenLog | null {
  const path = join(place.stateDir, 'log');
  const fd = openIfThere(place, path);
  return fd === null ? null : { path, fd, tail: new LogTail(place, path, fd) };
}

function running(runtimeDir: string): LogPlace[] {
  return listBusNames(runtimeDir).map((name) => ({ name, stateDir: join(runtimeDir, 'state', name) }));
}

function ended(runtimeDir: string): LogPlace[] {
  return listEndedLogs(runtimeDir).map((name) => ({ name, stateDir: endedLogDir({ runtimeDir, name }) }));
}

function inodeOf({ dev, ino }: Stats): string {
  return `${dev}:${ino}`;
}

function withBus(bus: string, lines: readonly LogLine[]): LineOfBus[] {
  return lines.map((line) => ({ bus, ...line }));
}

function linesIn(place: LogPlace, mostBytes = Number.POSITIVE_INFINITY): LineOfBus[] {
  const parts = ['log.1', 'log'].flatMap((name) => ifReadable(() => readAll(place, join(place.stateDir, name))) ?? []);
  const bytes = Buffer.concat(parts);
  const from = Math.max(0, bytes.length - mostBytes);
  // it begins with a whole line
  return withBus(place.name, splitLines(from === 0 ? bytes : bytes.subarray(bytes.indexOf('\n', from) + 1)));
}

/** Null if it fails: something that is no log, or that may not be read, must not hide the others. */
function ifReadable<Result>(read: () => Result): Result | null {
  try {
    return read();
  } catch {
    return null;
  }
}

/** Merges logs, each of which is in order. A line without a time stays behind the line before it. */
function sortByTime(logs: readonly (readonly LineOfBus[])[]): LineOfBus[] {
  const timed = logs.flatMap((lines) => {
    let time = '';
    return lines.map((line) => {
      time = line.record.time ?? time;
      return { line, time };
    });
  });
  // the sort is stable, and times in UTC have the order of their texts
  timed.sort((a, b) => (a.time === b.time ? 0 : a.time < b.time ? -1 : 1));
  return timed.map(({ line }) => line);
}
