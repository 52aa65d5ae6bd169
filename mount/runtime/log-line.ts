/**
 * A line of a bus's log: an event as JSON, so that every program reads it.
 *
 *      {"time":"2026-01-31T12:00:00.000Z","event":"attached","vdev":"xvda","driver":"aio","image":"/img/a b.img", …}
 *
 * `fusetap log` prints it for people: `2026-01-31T12:00:00.000Z attached vdev=xvda driver=aio image="/img/a b.img"`.
 * Any other line was printed by a process that crashed, or written by another version of fusetap: it is shown as
 * `output`.
 */
import { constants, openSync } from 'node:fs';
import { join } from 'node:path';

/** An event on a bus. A key without a value is null. */
export type BusEvent =
  | { event: 'started'; path: string; keeperPid: number; serverPid: number | null; version: string }
  | { event: 'attached'; vdev: string; driver: string; image: string | null; mode: string; size: number }
  /** error: why acknowledged writes may be lost */
  | { event: 'detached'; vdev: string; error: string | null }
  /** it was detached because nobody used it any more */
  | { event: 'unused'; vdev: string }
  /** the client of its attach went away before it had the answer */
  | { event: 'undone'; vdev: string }
  /** the unit of the bus is being stopped, and the bus waits for these users of its vbds */
  | { event: 'awaits-users'; holders: string }
  /** holders: the users of the vbd when it was detached by force */
  | { event: 'cut-off'; vdev: string; holders: string }
  /**
   * how: the error that it did not handle, else as waitpid(2) tells. driver, vdev: whose code failed, and the vbds that
   * use it, if known
   */
  | { event: 'server-died'; pid: number | null; how: string; driver?: string; vdev?: string }
  /** a call of a driver failed; omitted: how many errors of that operation before it were not logged */
  | { event: 'driver-error'; vdev: string; driver: string; operation: string; message: string; omitted?: number }
  | { event: 'server-silent'; pid: number; silentMs: number }
  | { event: 'server-spins'; pid: number; spinningMs: number }
  /** logged once per reason, however often the start is tried */
  | { event: 'server-not-started'; reason: string }
  /** a new server could not open the disk of a vbd: its I/O is EIO */
  | { event: 'broken'; vdev: string; reason: string }
  /** its disk is on a network and cannot be reached: its requests wait */
  | { event: 'reconnecting'; vdev: string; reason: string }
  | { event: 'reconnected'; vdev: string; seconds: number }
  /** the other end may have lost writes that it has acknowledged: the next fsync of each handle fails */
  | { event: 'writes-lost'; vdev: string; reason: string }
  /** a later server could open the disk of a broken vbd */
  | { event: 'mended'; vdev: string }
  /** pauseMs: how long requests had to wait */
  | {
      event: 'server-replaced';
      pid: number;
      oldPid: number | null;
      why: string;
      pauseMs: number;
      /** null: it is older, and does not tell its version */
      version: string | null;
    }
  /** writes and write-back waited for each other: the disk below was flushed for `ms` to resolve that */
  | { event: 'relieved'; ms: number }
  | { event: 'signal'; signal: string }
  /** `fusetap run` and its command have ended, and run could not end the bus itself */
  | { event: 'abandoned' }
  /** the bus has ended, and data of a vbd may not be durable; one event for each such vbd */
  | { event: 'not-durable'; bus: string; vdev: string; image: string | null; reason: string }
  /** the last event of a bus; how: what ended it; durable: whether all acknowledged writes are */
  | { event: 'ended'; how: string; durable: boolean }
  | { event: 'copying'; image: string | null; percent: number }
  | { event: 'repairing'; image: string | null; percent: number }
  /** a driver has finished what a crash left behind, at an attach or a swap; one event for each remark */
  | { event: 'image-repaired'; image: string | null; remark: string }
  | { event: 'committing'; image: string | null; percent: number }
  /** what the vbd had over its base is in the base */
  | { event: 'committed'; vdev: string; base: string | null }
  | { event: 'saved'; vdev: string; path: string | null; driver?: string }
  | { event: 'reset'; vdev: string }
  | { event: 'paused'; vdev: string }
  | { event: 'resumed'; vdev: string }
  | { event: 'swapped'; vdev: string; driver: string; image: string | null }
  /** the partition table was read again; partitions: how many there are now */
  | { event: 'reread'; vdev: string; partitions: number }
  | { event: 'resized'; vdev: string; size: number; oldSize: number }
  /** the keeper died; its server continues to serve */
  | { event: 'orphaned'; serverPid: number }
  /** reason: why a file for other processes cannot be written; null: all files are written again */
  | { event: 'bookkeeping'; reason: string | null }
  /** the mount of a dead bus was removed */
  | { event: 'repaired'; path: string }
  | { event: 'failed'; reason: string }
  /** a program asked for another size of the vbd, which is fixed, and got EPERM */
  | { event: 'resize-refused'; vdev: string; sizeBytes: number }
  /** a message that has no event of its own */
  | { event: 'note'; text: string };

/** A line that was read: an event with its time, or output of a process. */
export type LogRecord = ({ time: string } & BusEvent) | { time: null; event: 'output'; text: string };

/** The line of an event, without the line end. */
export function printLine(time: Date, event: BusEvent): string {
  // JSON does not escape all characters that end a line or control a terminal
  return JSON.stringify({ time: time.toISOString(), ...event }).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) =>
    character
      .split('')
      .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
      .join(''),
  );
}

/** The record of a line. Never fails: a line of any other form is output. */
export function parseLine(line: string): LogRecord {
  try {
    // a newer fusetap may have events that are not in the type
    const record = JSON.parse(line) as Partial<LogRecord> | null;
    if (typeof record?.time === 'string' && typeof record.event === 'string') return record as LogRecord;
  } catch {
    // not JSON
  }
  return { time: null, event: 'output', text: line };
}

/** A record for people: the time, the event, and its values as `key=value`, in JSON if a value is not a plain word. */
export function describeRecord(record: LogRecord): string {
  if (record.time === null) return record.text;
  const { time, event, ...values } = record;
  const pairs = Object.entries(values).map(([key, value]) => ` ${key}=${describeValue(value)}`);
  return `${time} ${event}${pairs.join('')}`;
}

const CONSTANTS: readonly string[] = ['null', 'true', 'false'];

function describeValue(value: unknown): string {
  const isPlain = typeof value === 'string' && /^[A-Za-z/][\w./:@+-]*$/.test(value) && !CONSTANTS.includes(value);
  return isPlain ? value : JSON.stringify(value);
}

/** Opens the log of a bus for writing at its end. @throws a system error */
export function openLog(stateDir: string): number {
  const { O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW } = constants;
  return openSync(join(stateDir, 'log'), O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW, 0o600);
}
