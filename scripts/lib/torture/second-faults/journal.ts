/** Records what was done and found: faults and which of them are active, commands and their times, errors. */

/** The failures that a fault explains, while it is active and for a moment after. */
export interface Excuses {
  /** I/O errors on one disk, or without a path on a whole bus */
  readonly io?: { readonly path?: string; readonly bus?: string; readonly codes: readonly string[] };
  /** commands that may be refused, but may not be done by half; without a bus, on all buses */
  readonly commands?: { readonly kinds: readonly string[]; readonly bus?: string };
}

/** A fault that is active, until it is undone. */
export interface Standing extends Excuses {
  readonly fault: string;
  /** the place, for the reader of an error */
  readonly where: string;
  readonly fromMs: number;
  untilMs: number;
}

export interface Failure {
  readonly bus: string;
  readonly path: string;
  readonly code: string;
  readonly fromMs: number;
  readonly untilMs: number;
}

/** how long after it was undone a fault is named with an error */
const AFTERMATH_MS = 2_000;
/** further errors are counted, not printed */
const ERRORS_PRINTED = 40;

export class Journal {
  readonly errors: string[] = [];
  readonly commands = new Map<string, number[]>();
  /** commands that were refused while an active fault excused it */
  readonly refused = new Map<string, number>();
  readonly counts = new Map<string, number>();
  readonly #standing: Standing[] = [];
  readonly #excused: Standing[] = [];
  readonly #beganMs = Date.now();
  readonly #print: (line: string) => void;

  constructor(print: (line: string) => void) {
    this.#print = print;
  }

  begin(fault: string, where: string, excuses: Excuses = {}): Standing {
    this.count(`fault ${fault}`);
    const standing = { fault, where, ...excuses, fromMs: Date.now(), untilMs: Number.POSITIVE_INFINITY };
    this.#standing.push(standing);
    return standing;
  }

  end(standing: Standing): void {
    standing.untilMs = Date.now();
  }

  /** Excuses something permanently, such as an operation that a disk does not support. */
  excuse(excuses: Excuses): void {
    this.#excused.push({ fault: '', where: '', ...excuses, fromMs: 0, untilMs: Number.POSITIVE_INFINITY });
  }

  count(what: string, by = 1): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + by);
  }

  /** Records an error with its bus and the active faults. */
  error(bus: string, what: string): void {
    const faults = this.#during(Date.now(), Date.now(), AFTERMATH_MS).map(({ fault, where }) => `${fault} (${where})`);
    const under = faults.length === 0 ? 'no fault stood' : `under ${[...new Set(faults)].join(', ')}`;
    const seconds = ((Date.now() - this.#beganMs) / 1000).toFixed(1);
    const line = `bus ${bus}: ${what} [at ${seconds} s, ${under}]`;
    this.errors.push(line);
    if (this.errors.length <= ERRORS_PRINTED) this.#print(`error: ${line}`);
  }

  /** Whether a fault that was active meanwhile explains an I/O error. */
  isIoExcused({ bus, path, code, fromMs, untilMs }: Failure): boolean {
    return [...this.#excused, ...this.#during(fromMs, untilMs)].some(({ io }) => {
      if (io === undefined || !io.codes.includes(code)) return false;
      return io.path === undefined ? io.bus === bus : io.path === path;
    });
  }

  /** Whether a fault that was active meanwhile explains that a command was refused. */
  isCommandExcused(bus: string, kind: string, fromMs: number): boolean {
    return this.#during(fromMs, Date.now()).some(({ commands }) => {
      return commands?.kinds.includes(kind) && (commands.bus ?? bus) === bus;
    });
  }

  timed(kind: string, ms: number): void {
    const times = this.commands.get(kind) ?? [];
    times.push(ms);
    this.commands.set(kind, times);
  }

  #during(fromMs: number, untilMs: number, graceMs = 0): Standing[] {
    return this.#standing.filter((each) => each.fromMs <= untilMs && each.untilMs + graceMs >= fromMs);
  }
}
