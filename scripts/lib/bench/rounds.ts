/** The rounds: each runs every job on every target, and reports the results as they come. */
import { FusetapError } from '../../../drivers/errors.js';
import { formatValue } from './format.js';
import type { Job } from './jobs.js';
import { type Bench, findObstacle, isHopeless, measure } from './measure.js';
import { type Reading, type Result, resultsOf } from './record.js';
import { visitingOrder } from './statistics.js';
import type { Target } from './targets/target.js';

export interface Plan {
  jobs: readonly Job[];
  targets: readonly Target[];
  baseline: string;
  rounds: number;
}

export interface Outcome {
  results: Result[];
  skipped: string[];
  failures: string[];
}

/** Collects the targets that are skipped, and the failures. */
interface Tell {
  skip(line: string): void;
  fail(line: string): void;
}

interface Entry {
  job: Job;
  /** by target, in the order of the plan */
  readings: Map<string, (Reading | null)[]>;
}

/** Runs all rounds. Rejects only when the signal is aborted; a job that fails is in `failures`. */
export async function runRounds(
  { jobs, targets, baseline, rounds }: Plan,
  bench: Bench,
  say: (line: string) => void,
): Promise<Outcome> {
  const skipped: string[] = [];
  const failures: string[] = [];
  const tell: Tell = {
    skip(line) {
      skipped.push(line);
      say(`skipped: ${line}`);
    },
    fail(line) {
      failures.push(line);
      say(`failed: ${line}`);
    },
  };
  const entries = await planEntries(jobs, targets, bench, tell);
  for (let round = 0; round < rounds; round++) {
    for (const entry of entries) {
      const told = await visitTargets(entry, visitingOrder(targets, round), bench, tell);
      say(`round ${round + 1}/${rounds} ${entry.job.name} (${entry.job.unit}): ${told.join(' · ')}`);
    }
  }
  const results = entries.flatMap(({ job, readings }) => resultsOf(job, readings, baseline));
  return { results, skipped, failures };
}

/** Runs the job on each target that still takes part. Removes targets that cannot take part any more. */
async function visitTargets({ job, readings }: Entry, order: Target[], bench: Bench, tell: Tell): Promise<string[]> {
  const told: string[] = [];
  for (const target of order) {
    const { name } = target;
    if (!readings.has(name)) continue;
    if (await isHopeless(job, target, bench)) {
      readings.delete(name);
      continue;
    }
    try {
      const reading = await attempt(job, target, bench);
      readings.get(name)?.push(reading);
      told.push(`${name} ${formatValue(reading.value, job.unit)}`);
    } catch (error) {
      if (bench.signal.aborted || !(error instanceof FusetapError)) throw error;
      const line = `${job.name} on ${name}: ${error.message}`;
      if (error.code === 'UNSUPPORTED') {
        tell.skip(line);
        readings.delete(name);
      } else {
        tell.fail(line);
        readings.get(name)?.push(null);
      }
    }
  }
  return told;
}

async function planEntries(
  jobs: readonly Job[],
  targets: readonly Target[],
  bench: Bench,
  tell: Tell,
): Promise<Entry[]> {
  const entries: Entry[] = [];
  for (const job of jobs) {
    const readings = new Map<string, (Reading | null)[]>();
    for (const target of targets) {
      const obstacle = await findObstacle(job, target, bench);
      if (obstacle === null) readings.set(target.name, []);
      else tell.skip(`${job.name} on ${target.name}: ${obstacle}`);
    }
    entries.push({ job, readings });
  }
  return entries;
}

async function attempt(job: Job, target: Target, bench: Bench): Promise<Reading> {
  bench.signal.throwIfAborted();
  try {
    return await measure(job, target, bench);
  } catch (error) {
    bench.signal.throwIfAborted();
    if (error instanceof FusetapError) throw error;
    throw new FusetapError('FAILED', error instanceof Error ? error.message : String(error), { cause: error });
  }
}
