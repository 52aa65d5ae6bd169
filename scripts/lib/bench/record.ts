/** The results of a run, as --json writes them and --check reads them. */
import { readFile, writeFile } from 'node:fs/promises';
import { z } from 'zod';
import { FusetapError, toFusetapError } from '../../../drivers/errors.js';
import { quoted } from '../../../drivers/quote.js';
import { median, ratioSpread } from './statistics.js';

/** the version of this layout; other versions are refused */
const VERSION = 1;

const LatencyUs = z.object({ p50: z.number(), p99: z.number(), p999: z.number() });
export type LatencyUs = z.infer<typeof LatencyUs>;

const Reading = z.object({
  /** in the unit of the job */
  value: z.number(),
  latencyUs: LatencyUs.nullable(),
  /** CPU time of the serving processes; null if the kernel serves */
  cpuUsPerRequest: z.number().nullable(),
});
/** One job on one target in one round. */
export type Reading = z.infer<typeof Reading>;

const Spread = z.object({ median: z.number(), min: z.number(), max: z.number() });

const Result = z.object({
  job: z.string(),
  target: z.string(),
  unit: z.enum(['IOPS', 'MB/s', 's', 'ms', 'MiB']),
  better: z.enum(['more', 'less']),
  /** by round; null if it failed */
  rounds: z.array(Reading.nullable()),
  median: z.number().nullable(),
  /** how many times as good as the baseline; null for jobs that the baseline did not do */
  ratio: Spread.nullable(),
});
/** One job on one target in all rounds. */
export type Result = z.infer<typeof Result>;

const BenchRecord = z.object({
  version: z.literal(VERSION),
  date: z.string(),
  machine: z.record(z.string(), z.string()),
  baseline: z.string(),
  rounds: z.number(),
  seconds: z.number(),
  engine: z.string(),
  sizeBytes: z.number(),
  coldSizeBytes: z.number(),
  results: z.array(Result),
  /** what was skipped, and why */
  skipped: z.array(z.string()),
  failures: z.array(z.string()),
});
export type BenchRecord = z.infer<typeof BenchRecord>;

/** The readings of one job, by target. */
export type Readings = ReadonlyMap<string, readonly (Reading | null)[]>;

/** Results of a job for each target, with their ratios to the baseline. */
export function resultsOf(
  job: Pick<Result, 'unit' | 'better'> & { name: string },
  readings: Readings,
  baseline: string,
): Result[] {
  const values = (target: string): (number | null)[] =>
    (readings.get(target) ?? []).map((reading) => reading?.value ?? null);
  return [...readings].map(([target, rounds]) => ({
    job: job.name,
    target,
    unit: job.unit,
    better: job.better,
    rounds: [...rounds],
    median: median(values(target).filter((value) => value !== null)),
    ratio: ratioSpread(values(target), values(baseline), job.better),
  }));
}

/** @throws FusetapError USAGE if the file is not a record */
export async function readRecord(path: string): Promise<BenchRecord> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw toFusetapError(error, `cannot read the record ${quoted(path)}`, { path });
  });
  const parsed = BenchRecord.safeParse(parseJson(text));
  if (parsed.success) return parsed.data;
  throw new FusetapError('USAGE', `${quoted(path)} is not a record of scripts/bench, version ${VERSION}`, {
    hint: 'make one with scripts/bench --json FILE',
    path,
  });
}

export async function writeRecord(path: string, record: BenchRecord): Promise<void> {
  await writeFile(path, `${JSON.stringify(record, null, 1)}\n`);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
