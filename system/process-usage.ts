/**
 * What a process uses: processor time and memory, from /proc. To show whether a disk is slow because its server is busy.
 */
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { PAGE_BYTES } from './page.js';
import { statFields } from './proc.js';

/** the unit of times in /proc; it is 100 on every architecture that Node runs on */
const TICKS_PER_SECOND = 100;
/** in the fields that follow the name, see statFields */
const UTIME = 11;
const STIME = 12;
const RSS = 21;

export interface ProcessUsage {
  /** processor time of all its threads since its start, user and system; in steps of 10 ms */
  readonly cpuMs: number;
  /** its pages that are in memory, shared ones too */
  readonly rssBytes: number;
}

/** Null if the process is gone, or cannot be read. */
export function readUsage(pid: number): ProcessUsage | null {
  let fields: string[];
  try {
    fields = statFields(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return null;
  }
  if (fields[0] === 'Z' || fields[0] === 'X') return null;
  const ticks = Number(fields[UTIME]) + Number(fields[STIME]);
  return { cpuMs: (ticks * 1000) / TICKS_PER_SECOND, rssBytes: Number(fields[RSS]) * PAGE_BYTES };
}

/**
 * The proportional set size of a process: a page that n processes share counts as 1/n. The kernel walks all its pages for
 * that, so do not ask often. Null if it cannot be read.
 */
export async function readPss(pid: number): Promise<number | null> {
  try {
    const [, kilobytes] = /^Pss: +(\d+) kB$/m.exec(await readFile(`/proc/${pid}/smaps_rollup`, 'utf8')) ?? [];
    return kilobytes === undefined ? null : Number(kilobytes) * 1024;
  } catch {
    return null;
  }
}
