/** The command line of scripts/bench. */
import { parseArgs } from 'node:util';
import { FusetapError } from '../../../drivers/errors.js';
import { quoted } from '../../../drivers/quote.js';
import { type Job, selectJobs } from './jobs.js';
import type { BenchRecord } from './record.js';
import { selectTargets } from './targets/all.js';
import type { Target } from './targets/target.js';

export const USAGE = `Usage: scripts/bench [options]

Runs the same jobs over several targets, interleaved round by round, and prints medians and ratios.

Options:
  --quick              ram through threads against qemu: 4k random reads and 1M reads; exit 1 if it is slower
  --startup            the time of commands compared with node -e 0, which does nothing; exit 1 if one takes too long
  --jobs LIST          comma-separated: names, names with *, or default, quick, workloads, all
  --targets LIST       comma-separated: names, or names with * (default: all targets that the machine has)
  --baseline TARGET    the target that ratios refer to (default: qemu)
  --rounds N           number of rounds (default: 5)
  --seconds S          duration of each fio job (default: 2)
  --size BYTES         size of an image, with K, M or G (default: 256M)
  --cold-size BYTES    size of an image of cold jobs (default: 512M)
  --image-dir DIR      directory on a tmpfs for images of warm jobs (default: /dev/shm)
  --qemu PATH          the qemu-storage-daemon of another QEMU, for the target qemu-given
  --cold-dir DIR       directory on a disk for images of cold jobs (default: /var/tmp)
  --engine NAME        fio's ioengine (default: libaio)
  --json FILE          write all measurements to FILE
  --plots DIR          write charts to DIR, as SVG files
  --check FILE         run the jobs of FILE (made with --json) and compare ratios; exit 1 if one is lower
  --tolerance PART     how much lower a ratio may be than in --check (default: 0.15)
  --list               print jobs and targets
  --help               print this help
`;

export interface Settings {
  jobs: Job[];
  targets: Target[];
  baseline: string;
  rounds: number;
  seconds: number;
  sizeBytes: number;
  coldSizeBytes: number;
  imageDir: string;
  coldDir: string;
  engine: string;
  quick: boolean;
  json: string | null;
  plots: string | null;
  tolerance: number;
}

const OPTIONS = {
  quick: { type: 'boolean' },
  startup: { type: 'boolean' },
  jobs: { type: 'string' },
  targets: { type: 'string' },
  baseline: { type: 'string' },
  rounds: { type: 'string' },
  seconds: { type: 'string' },
  size: { type: 'string' },
  'cold-size': { type: 'string' },
  'image-dir': { type: 'string' },
  'cold-dir': { type: 'string' },
  qemu: { type: 'string' },
  engine: { type: 'string' },
  json: { type: 'string' },
  plots: { type: 'string' },
  check: { type: 'string' },
  tolerance: { type: 'string' },
  list: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const;

export type Words = ReturnType<typeof parseArgs<{ options: typeof OPTIONS }>>['values'];

/** @throws FusetapError USAGE */
export function parseWords(args: string[]): Words {
  try {
    return parseArgs({ args, options: OPTIONS }).values;
  } catch (error) {
    throw new FusetapError('USAGE', (error as Error).message, { hint: 'see scripts/bench --help' });
  }
}

/**
 * The settings of the options. Settings that are not given come from the record of --check, if there is one.
 * @throws FusetapError USAGE
 */
export function settingsOf(words: Words, recorded: BenchRecord | null): Settings {
  const quick = words.quick ?? false;
  const names = (key: 'job' | 'target'): string | undefined =>
    recorded === null ? undefined : [...new Set(recorded.results.map((result) => result[key]))].join(',');
  const targets = words.targets ?? (quick ? 'qemu,fusetap-ram' : (names('target') ?? '*'));
  const jobs = words.jobs ?? (quick ? 'quick' : (names('job') ?? 'default'));
  const baseline = words.baseline ?? recorded?.baseline ?? 'qemu';
  return {
    jobs: selectJobs(splitList(jobs)),
    targets: selectTargets(splitList(targets)),
    baseline: selectTargets([baseline])[0]?.name ?? baseline,
    rounds: wholeNumber('--rounds', words.rounds) ?? recorded?.rounds ?? 5,
    seconds: wholeNumber('--seconds', words.seconds) ?? recorded?.seconds ?? 2,
    sizeBytes: sizeBytes('--size', words.size) ?? recorded?.sizeBytes ?? 256 << 20,
    coldSizeBytes: sizeBytes('--cold-size', words['cold-size']) ?? recorded?.coldSizeBytes ?? 512 << 20,
    imageDir: words['image-dir'] ?? '/dev/shm',
    coldDir: words['cold-dir'] ?? '/var/tmp',
    engine: words.engine ?? recorded?.engine ?? 'libaio',
    quick,
    json: words.json ?? null,
    plots: words.plots ?? null,
    tolerance: part('--tolerance', words.tolerance) ?? 0.15,
  };
}

const splitList = (text: string): string[] => text.split(',').map((word) => word.trim());

export function wholeNumber(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  // fio takes only whole seconds
  if (!/^[1-9]\d{0,5}$/.test(text)) throw badValue(option, text, 'a whole number above 0');
  return Number(text);
}

function part(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (text.trim() === '' || !(value >= 0 && value < 1)) throw badValue(option, text, 'a number from 0 to 1, as 0.15');
  return value;
}

const UNITS: Readonly<Record<string, number>> = { '': 1, K: 1 << 10, M: 1 << 20, G: 1 << 30 };
const SMALLEST_IMAGE_BYTES = 64 << 20;

function sizeBytes(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const [, digits, unit] = /^(\d+)([KMG]?)$/.exec(text) ?? [];
  const bytes = Number(digits) * (UNITS[unit ?? ''] ?? Number.NaN);
  // a smaller disk has no room for the workloads' files
  if (!(bytes >= SMALLEST_IMAGE_BYTES) || bytes % (1 << 20) !== 0) {
    throw badValue(option, text, 'whole megabytes, 64M or more');
  }
  return bytes;
}

const badValue = (option: string, text: string, wanted: string): FusetapError =>
  new FusetapError('USAGE', `${option} got ${quoted(text)}`, { hint: `give ${wanted}` });
