/**
 * A line of a bus's log: an event that reads well and parses back.
 *
 *      2026-01-31T12:00:00.000Z attached vdev=xvda driver=aio image="/img/a b.img" mode=w size=1048576
 *
 * One form for people and for programs, so that nothing can be in one and not in the other. Words stand bare; all other
 * values are JSON. What is not of this form was printed by a process that crashed: `output`.
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
  | { event: 'server-not-started'; reason: string }
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

const LINE = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) ([a-z][a-z-]*)((?: [A-Za-z]+=(?:"(?:[^"\\]|\\.)*"|[^\s"]+))*)$/;
const PAIR = / ([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^\s"]+)/g;

/** The line of an event, without its end. */
export function printLine(time: Date, { event, ...values }: BusEvent): string {
  const pairs = Object.entries(values).map(([key, value]) => ` ${key}=${printValue(value)}`);
  return `${time.toISOString()} ${event}${pairs.join('')}`;
}

/** The record of a line. Never fails: a line of any other form is output. */
export function parseLine(line: string): LogRecord {
  const [, time, event, pairs = ''] = LINE.exec(line) ?? [];
  if (time === undefined || event === undefined) return { time: null, event: 'output', text: line };
  try {
    const values = [...pairs.matchAll(PAIR)].map(([, key, value]) => [key, parseValue(value ?? '')]);
    // of a newer fusetap there may be events that are not in the type
    return { time, event, ...Object.fromEntries(values) } as LogRecord;
  } catch {
    return { time: null, event: 'output', text: line };
  }
}

const CONSTANTS: readonly string[] = ['null', 'true', 'false'];

function printValue(value: string | number | null): string {
  if (typeof value === 'string' && /^[A-Za-z/][\w./:@+-]*$/.test(value) && !CONSTANTS.includes(value)) return value;
  // JSON leaves in characters that end a line or command a terminal
  return JSON.stringify(value).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) =>
    character
      .split('')
      .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
      .join(''),
  );
}

function parseValue(text: string): unknown {
  const isWord = /^[A-Za-z/]/.test(text) && !CONSTANTS.includes(text);
  return isWord ? text : (JSON.parse(text) as unknown);
}
