/** Measures one job on one target once, in the job's unit. */
import { rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { FusetapError } from '../../../drivers/errors.js';
import { type FioSettings, fillByFio, runFio } from './fio.js';
import type { Fleet, Site } from './fleet.js';
import { dropCaches } from './images.js';
import type { FillJob, FioJob, Job, ServiceJob, WorkloadJob } from './jobs.js';
import { cpuSeconds, pssBytes } from './processes.js';
import type { Reading } from './record.js';
import type { Target } from './targets/target.js';
import type { Undo } from './undo.js';
import { findMissingFor, runWorkload } from './workloads.js';

export interface Bench {
  fleet: Fleet;
  warm: Site;
  /** null if there is no disk for it */
  cold: Site | null;
  /** for mountpoints and files of the workloads */
  workDirectory: string;
  undo: Undo;
  fio: FioSettings;
  signal: AbortSignal;
}

/** the image for timed attaches: sparse, so that a copy of it takes no time */
const ATTACHED_SIZE_BYTES = 64 << 20;

/** Why the job cannot run on the target on this machine, or null. */
export async function findObstacle(job: Job, target: Target, bench: Bench): Promise<string | null> {
  if (job.kind === 'workload') return target.noLoop ?? findMissingFor(job);
  if (job.kind === 'service') return target.name === 'raw' ? 'nothing serves it' : null;
  if (job.kind === 'fill') return null;
  if (!job.cold) return null;
  if (bench.cold === null) return 'no disk: --cold-dir lies in memory';
  return target.holdsImageInMemory ? 'it holds its image in memory' : null;
}

/** Whether the job cannot succeed because its target did not start. */
export async function isHopeless(job: Job, target: Target, { fleet, warm, cold }: Bench): Promise<boolean> {
  return fleet.isLost(target, siteOf(job, warm, cold));
}

const siteOf = (job: Job, warm: Site, cold: Site | null): Site =>
  job.kind === 'fio' && job.cold && cold !== null ? cold : warm;

/** @throws FusetapError: UNSUPPORTED if the target has nothing to measure, else the job failed */
export function measure(job: Job, target: Target, bench: Bench): Promise<Reading> {
  if (job.kind === 'fio') return measureFio(job, target, bench);
  if (job.kind === 'fill') return measureFill(job, target, bench);
  return job.kind === 'workload' ? measureWorkload(job, target, bench) : measureService(job, target, bench);
}

async function measureFio(job: FioJob, target: Target, bench: Bench): Promise<Reading> {
  const { imagePath, served } = await bench.fleet.berth(target, siteOf(job, bench.warm, bench.cold));
  if (job.cold) await dropCaches(imagePath);
  const before = await cpuSeconds(served.pids);
  const fio = await runFio(job, served.path, bench.fio, bench.signal);
  const after = await cpuSeconds(served.pids);
  return {
    value: job.unit === 'IOPS' ? fio.iops : fio.bytesPerSecond / 1e6,
    latencyUs: fio.latencyUs,
    cpuUsPerRequest: before === null || after === null ? null : ((after - before) * 1e6) / fio.requests,
  };
}

const plainReading = (value: number): Reading => ({ value, latencyUs: null, cpuUsPerRequest: null });

async function measureWorkload(job: WorkloadJob, target: Target, bench: Bench): Promise<Reading> {
  const { served } = await bench.fleet.berth(target, bench.warm);
  const { workDirectory, signal } = bench;
  const undo = bench.undo.nested();
  const place = { devicePath: served.path, workDirectory, undo, signal };
  return withUndo(undo, async () => plainReading(await runWorkload(job, place)));
}

/** On an image of its own, which is new to the target. */
async function measureFill(job: FillJob, target: Target, bench: Bench): Promise<Reading> {
  const { directory, sizeBytes } = bench.warm;
  const imagePath = join(directory, `${target.name}-filled.img`);
  await writeFile(imagePath, '');
  await truncate(imagePath, sizeBytes);
  const undo = bench.undo.nested();
  return withUndo(undo, async () => {
    const served = await bench.fleet.launch(target, imagePath, sizeBytes, undo);
    const rate = await fillByFio(job, served.path, bench.fio, bench.signal);
    await served.stop();
    await rm(imagePath);
    return plainReading(rate);
  });
}

async function measureService(job: ServiceJob, target: Target, bench: Bench): Promise<Reading> {
  if (job.name === 'memory') {
    const { served } = await bench.fleet.berth(target, bench.warm);
    const bytes = await pssBytes(served.pids);
    if (bytes === null) throw new FusetapError('UNSUPPORTED', 'no process serves it');
    return plainReading(bytes / 2 ** 20);
  }
  const imagePath = join(bench.warm.directory, `${target.name}-attached.img`);
  await writeFile(imagePath, '');
  await truncate(imagePath, ATTACHED_SIZE_BYTES);
  const undo = bench.undo.nested();
  return withUndo(undo, async () => {
    const started = performance.now();
    const served = await bench.fleet.launch(target, imagePath, ATTACHED_SIZE_BYTES, undo);
    const attached = performance.now();
    await served.stop();
    const detached = performance.now();
    await rm(imagePath);
    return plainReading(job.name === 'attach' ? attached - started : detached - attached);
  });
}

/** Does the work, then undoes it; a failure to undo is a failure of the work. */
async function withUndo<T>(undo: Undo, work: () => Promise<T>): Promise<T> {
  let result: T;
  try {
    result = await work();
  } catch (error) {
    await undo.run();
    throw error;
  }
  const [first] = await undo.run();
  if (first !== undefined) throw first;
  return result;
}
