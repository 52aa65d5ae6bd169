/** One fio job on one path: its arguments, and its JSON result. */
import { z } from 'zod';
import { FusetapError } from '../../../drivers/errors.js';
import { parseRbdUri } from '../../../drivers/rbd/uri.js';
import { runCommand } from './command.js';
import type { FillJob, FioJob } from './jobs.js';
import type { LatencyUs } from './record.js';

/** a disk that is not full then is measured as far as it was written */
const FILL_SECONDS = 60;

export interface FioSettings {
  seconds: number;
  /** fio's --ioengine */
  engine: string;
}

export interface FioReading {
  requests: number;
  iops: number;
  bytesPerSecond: number;
  /** of the reads if there are any, else of the writes: from before submission to completion */
  latencyUs: LatencyUs;
}

const Direction = z.object({
  total_ios: z.number(),
  iops: z.number(),
  bw_bytes: z.number(),
  lat_ns: z.object({ percentile: z.record(z.string(), z.number()).optional() }),
});
const Output = z.object({
  jobs: z.array(z.object({ error: z.number(), read: Direction, write: Direction })).length(1),
});

/** The arguments of fio for a job; `path` may have any character, or be the URI of an NBD export. */
export function fioArguments(job: FioJob, path: string, { seconds, engine }: FioSettings): string[] {
  return [
    '--name=bench',
    // its jobs are threads: processes would go on when fio is killed
    '--thread',
    '--output-format=json',
    ...pathArguments(path, engine),
    `--rw=${job.rw}`,
    ...(job.rw.endsWith('rw') ? ['--rwmixread=70'] : []),
    `--bs=${job.blockBytes}`,
    `--iodepth=${job.depth}`,
    `--direct=${job.direct ? 1 : 0}`,
    `--runtime=${seconds}`,
    // a cold job never reads a block twice: it ends early if it has read everything
    ...(job.cold ? [] : ['--time_based', '--norandommap']),
    ...(job.fsync ? ['--fsync=1'] : []),
    // each process has its own part, else the second would find the blocks of the first in the cache
    ...(job.processes > 1
      ? [
          `--numjobs=${job.processes}`,
          `--size=${100 / job.processes}%`,
          `--offset_increment=${100 / job.processes}%`,
          '--group_reporting',
        ]
      : []),
    // the total latency: a request that is served during submission (tmpfs) has no completion latency
    '--clat_percentiles=0',
    '--lat_percentiles=1',
    '--percentile_list=50:99:99.9',
  ];
}

/** The arguments that name a disk: a file, an export of an NBD server, or an image in Ceph. */
function pathArguments(path: string, engine: string): string[] {
  if (path.startsWith('nbd')) return ['--ioengine=nbd', `--uri=${path}`];
  const { pool, image } = path.startsWith('rbd:') ? parseRbdUri(path) : { pool: null, image: null };
  if (image !== null) return ['--ioengine=rbd', '--clientname=admin', `--pool=${pool}`, `--rbdname=${image}`];
  // fio uses a colon to separate files
  const file = path.replaceAll('\\', '\\\\').replaceAll(':', '\\:');
  return [`--filename=${file}`, '--allow_file_create=0', `--ioengine=${engine}`];
}

/** fio finds a cluster of Ceph only by a variable. */
function environmentOf(path: string): NodeJS.ProcessEnv {
  const conf = path.startsWith('rbd:') ? parseRbdUri(path).conf : null;
  return conf === null ? process.env : { ...process.env, CEPH_CONF: conf };
}

/** Writes all of a disk once. @returns MB/s @throws FusetapError FAILED if fio, or any of its requests, fails */
export async function fillByFio(job: FillJob, path: string, { engine }: FioSettings, signal: AbortSignal) {
  const once: FioJob = {
    ...job,
    ...{ kind: 'fio', rw: 'write', processes: 1, direct: true, fsync: false, cold: true },
  };
  const text = await runCommand('fio', fioArguments(once, path, { seconds: FILL_SECONDS, engine }), {
    timeoutMs: 1000 * FILL_SECONDS + 60_000,
    signal,
    environment: environmentOf(path),
  });
  return parseFio(text).bytesPerSecond / 1e6;
}

/** Runs the job. @throws FusetapError FAILED if fio, or any of its requests, fails */
export async function runFio(job: FioJob, path: string, settings: FioSettings, signal: AbortSignal) {
  const timeoutMs = 1000 * settings.seconds + 60_000;
  const environment = environmentOf(path);
  return parseFio(await runCommand('fio', fioArguments(job, path, settings), { timeoutMs, signal, environment }));
}

/** Reads the JSON that fio printed for one job. @throws FusetapError FAILED if it reports an error or no request */
export function parseFio(text: string): FioReading {
  // fio prints warnings before the document
  const parsed = Output.safeParse(parseJson(text.slice(Math.max(0, text.search(/^\{/m)))));
  const job = parsed.data?.jobs[0];
  if (job === undefined) throw new FusetapError('FAILED', `fio printed no result: ${text.slice(0, 200)}`);
  const { read, write } = job;
  const requests = read.total_ios + write.total_ios;
  if (job.error !== 0 || requests === 0) {
    throw new FusetapError('FAILED', `fio ended with error ${job.error} after ${requests} requests`);
  }
  const percentile = (read.total_ios > 0 ? read : write).lat_ns.percentile ?? {};
  const us = (name: string): number => (percentile[name] ?? 0) / 1000;
  return {
    requests,
    iops: read.iops + write.iops,
    bytesPerSecond: read.bw_bytes + write.bw_bytes,
    latencyUs: { p50: us('50.000000'), p99: us('99.000000'), p999: us('99.900000') },
  };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
