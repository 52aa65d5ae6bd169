/** CPU time and memory of the serving processes, from /proc. */
import { readFile } from 'node:fs/promises';
import { statFields } from '../../../system/proc.js';

/** the unit of times in proc_pid_stat(5), on every Linux architecture that Node runs on */
const TICKS_PER_SECOND = 100;

/** User and system time of a process with all its threads, in seconds, from the text of /proc/PID/stat. */
export function parseCpuSeconds(stat: string): number {
  const fields = statFields(stat);
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** Proportional set size in bytes, from the text of /proc/PID/smaps_rollup. */
export function parsePssBytes(rollup: string, field: PssField = 'Pss'): number {
  const kilobytes = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(rollup)?.[1];
  if (kilobytes === undefined) throw new RangeError(`smaps_rollup without a line ${field}`);
  return 1024 * Number(kilobytes);
}

/** Pss_Anon leaves out pages of files, whose share depends on the number of other Node processes */
export type PssField = 'Pss' | 'Pss_Anon';

/** CPU seconds of all the processes; null if there are none, or if one has ended. */
export async function cpuSeconds(pids: readonly number[]): Promise<number | null> {
  return sumOver(pids, async (pid) => parseCpuSeconds(await readFile(`/proc/${pid}/stat`, 'utf8')));
}

/** Memory of all the processes in bytes; null if there are none, or if one has ended. */
export async function pssBytes(pids: readonly number[], field?: PssField): Promise<number | null> {
  return sumOver(pids, async (pid) => parsePssBytes(await readFile(`/proc/${pid}/smaps_rollup`, 'utf8'), field));
}

async function sumOver(pids: readonly number[], measure: (pid: number) => Promise<number>): Promise<number | null> {
  if (pids.length === 0) return null;
  const values = await Promise.all(pids.map((pid) => measure(pid).catch(() => null)));
  return values.reduce<number | null>((sum, value) => (sum === null || value === null ? null : sum + value), 0);
}
