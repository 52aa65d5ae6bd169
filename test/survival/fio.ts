/** fio that verifies what it reads, while a test disturbs its bus. */
import type { Test } from 'tap';
import { collect, type Outcome, start } from '../e2e/command.js';
import type { Bench } from '../e2e/fixtures.js';

const MIB = 1 << 20;
/** two jobs, each on its own part of the disk: with small requests, and with the largest */
export const FIO_DISK_BYTES = 48 * MIB;

const JOBS = [
  ['--name=small', '--bs=4k', '--offset=0', `--size=${8 * MIB}`],
  ['--name=large', '--bs=1m', `--offset=${16 * MIB}`, `--size=${32 * MIB}`],
];
const COMMON = [
  ...['--rw=randwrite', '--verify=crc32c', '--verify_fatal=1', '--verify_backlog=64', '--iodepth=16', '--direct=1'],
  ...['--ioengine=libaio', '--allow_file_create=0', '--minimal'],
];

/** A run that is disturbed all the time takes as long as the disturbance does, on a slow machine minutes. */
const RUN_LIMIT_MS = 300_000;

/** A fio that runs until `end` is called. */
export class Verifier {
  readonly #bench: Bench;
  readonly #args: string[];
  #ending = false;
  #longestUs = 0;
  /** resolves with the first run that failed, or with the run during which `end` was called */
  readonly outcome: Promise<Outcome>;

  /** Starts two jobs on the file: random writes that are read back and compared, 16 at a time. */
  constructor(bench: Bench, path: string, more: readonly string[] = []) {
    this.#bench = bench;
    const randseed = `--randseed=${Math.floor(Math.random() * 1e9)}`;
    this.#args = [...COMMON, randseed, `--filename=${path}`, ...more, ...JOBS.flat()];
    this.outcome = this.#run();
  }

  /** Runs fio again and again, because a run cannot be ended cleanly. */
  async #run(): Promise<Outcome> {
    for (;;) {
      const outcome = await collect(start('fio', this.#args, { ...this.#bench.options(), timeoutMs: RUN_LIMIT_MS }));
      this.#longestUs = Math.max(this.#longestUs, ...outcome.stdout.split('\n').flatMap(longestOf));
      if (outcome.status !== 0 || this.#ending) return outcome;
    }
  }

  /** How long the slowest request has taken, in all runs that have ended. */
  get longestMs(): number {
    return this.#longestUs / 1000;
  }

  /** Lets the current run finish, and starts no other. */
  end(): Promise<Outcome> {
    this.#ending = true;
    return this.outcome;
  }
}

/** The longest reads and writes of a job, in a line of fio's terse output, version 3. */
function longestOf(line: string): number[] {
  const fields = line.split(';');
  return [fields[14], fields[55]].map(Number).filter(Number.isFinite);
}

/** Checks that fio found no error and no mismatch. */
export function provesIntact(t: Test, { status, stdout, stderr }: Outcome, what: string): void {
  if (status === 0) t.pass(`${what}: fio finds no error and no mismatch`);
  else t.fail(`${what}: fio ended with ${status}: ${stderr}${stdout}`);
}
