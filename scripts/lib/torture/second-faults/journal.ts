/** What was done and found: faults and which of them stand, commands and how long they took, errors. */

/** What may go wrong while a fault stands, and for a moment after, because it is what the fault is about. */
export interface Excuses {
  /** I/O errors, on one disk or, without a path, on a whole bus */
  readonly io?: { readonly path?: string; readonly bus?: string; readonly codes: readonly string[] };
  /** commands that may say no; they may not do half of what they were told. Without a bus: of all buses */
  readonly commands?: { readonly kinds: readonly string[]; readonly bus?: string };
}

/** A fault that was made, until it is undone. */
export interface Standing extends Excuses {
  readonly fault: string;
  /** where, for who reads an error */
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

/** faults are named with an error for so long after they were undone */
const AFTERMATH_MS = 2_000;
/** more errors than this are counted, not printed */
const ERRORS_PRINTED = 40;

export class Journal {
  readonly errors: string[] = [];
  readonly commands = new Map<string, number[]>();
  /** commands that said no while a fault stood that excuses it */
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

  /** Excuses something for good, as what a disk cannot do. */
  excuse(excuses: Excuses): void {
    this.#excused.push({ fault: '', where: '', ...excuses, fromMs: 0, untilMs: Number.POSITIVE_INFINITY });
  }

  count(what: string, by = 1): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + by);
  }

  /** An error: of which bus, what, and under which faults. */
  error(bus: string, what: string): void {
    const faults = this.#during(Date.now(), Date.now(), AFTERMATH_MS).map(({ fault, where }) => `${fault} (${where})`);
    const under = faults.length === 0 ? 'no fault stood' : `under ${[...new Set(faults)].join(', ')}`;
    const seconds = ((Date.now() - this.#beganMs) / 1000).toFixed(1);
    const line = `bus ${bus}: ${what} [at ${seconds} s, ${under}]`;
    this.errors.push(line);
    if (this.errors.length <= ERRORS_PRINTED) this.#print(`error: ${line}`);
  }

  /** Whether a fault that stood meanwhile explains an I/O error. */
  isIoExcused({ bus, path, code, fromMs, untilMs }: Failure): boolean {
    return [...this.#excused, ...this.#during(fromMs, untilMs)].some(({ io }) => {
      if (io === undefined || !io.codes.includes(code)) return false;
      return io.path === undefined ? io.bus === bus : io.path === path;
    });
  }

  /** Whether a fault that stood meanwhile explains that a command said no. */
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
