/**
 * A line of a bus's log: an event as JSON, so that every program reads it.
 *
 *      {"time":"2026-01-31T12:00:00.000Z","event":"attached","vdev":"xvda","driver":"aio","image":"/img/a b.img", …}
 *
 * `fusetap log` prints it for people: `2026-01-31T12:00:00.000Z attached vdev=xvda driver=aio image="/img/a b.img"`. What
 * is no such line was printed by a process that crashed, or written by a fusetap that had other lines: `output`.
 */

/** What happens on a bus. A key without a value is null. */
export type BusEvent =
  | { event: 'started'; path: string; keeperPid: number; serverPid: number | null }
  | { event: 'attached'; vdev: string; driver: string; image: string | null; mode: string; size: number }
  /** error: why acknowledged writes may be lost */
  | { event: 'detached'; vdev: string; error: string | null }
  /** who held it when it was detached by force */
  | { event: 'cut-off'; vdev: string; holders: string }
  | { event: 'server-died'; pid: number | null; how: string }
  | { event: 'server-silent'; pid: number; silentMs: number }
  | { event: 'server-spins'; pid: number; spinningMs: number }
  /** told once for each reason, however often it is tried */
  | { event: 'server-not-started'; reason: string }
  /** the disk of a vbd did not come back in a new server: its I/O is EIO */
  | { event: 'broken'; vdev: string; reason: string }
  /** it did, in a later one */
  | { event: 'mended'; vdev: string }
  /** pauseMs: how long requests had to wait */
  | { event: 'server-replaced'; pid: number; oldPid: number | null; why: string; pauseMs: number }
  /** writes waited for write-back that waited for them: the disk below was flushed for so long */
  | { event: 'relieved'; ms: number }
  | { event: 'signal'; signal: string }
  /** `fusetap run` and its command have ended, and run could not end the bus itself */
  | { event: 'abandoned' }
  /** the bus has ended, and not all is durable: why, one for each vbd */
  | { event: 'not-durable'; bus: string; vdev: string; image: string | null; reason: string }
  | { event: 'copying'; image: string | null; percent: number }
  | { event: 'saved'; vdev: string; path: string }
  | { event: 'reset'; vdev: string }
  | { event: 'paused'; vdev: string }
  | { event: 'resumed'; vdev: string }
  | { event: 'swapped'; vdev: string; driver: string; image: string | null }
  /** the keeper died; its server serves on */
  | { event: 'orphaned'; serverPid: number }
  /** why what the bus writes for others cannot be written; null: all of it is written again */
  | { event: 'bookkeeping'; reason: string | null }
  /** the mount of a dead bus was taken away */
  | { event: 'repaired'; path: string }
  | { event: 'failed'; reason: string }
  /** a program asked for another size of the vbd, which is fixed, and got EPERM */
  | { event: 'resize-refused'; vdev: string; sizeBytes: number }
  /** what is no event of its own */
  | { event: 'note'; text: string };

/** A line as it was read: an event with its time, or what a process printed. */
export type LogRecord = ({ time: string } & BusEvent) | { time: null; event: 'output'; text: string };

/** The line of an event, without its end. */
export function printLine(time: Date, event: BusEvent): string {
  // JSON leaves in characters that end a line or command a terminal
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
    // of a newer fusetap there may be events that are not in the type
    const record = JSON.parse(line) as Partial<LogRecord> | null;
    if (typeof record?.time === 'string' && typeof record.event === 'string') return record as LogRecord;
  } catch {
    // no JSON at all
  }
  return { time: null, event: 'output', text: line };
}

/** A record for people: the time, the event, and its values as `key=value`, in JSON if they are no plain words. */
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
