/**
 * Tells a thread that spins from one that waits: both work on the same request for long, but who waits for a disk takes
 * no processor time.
 */
import { readFileSync } from 'node:fs';
import type { Work } from '../ledger.js';

/** of the time between two looks; a thread that works on one request all that time and waits for nothing has all of it */
const SPINNING_SHARE = 0.5;
/** USER_HZ, which is the same on all of Linux's machines that Node runs on */
const TICK_MS = 10;

interface Seen {
  readonly unique: number;
  readonly cpuMs: number;
  readonly atMs: number;
  readonly looks: number;
}

export class SpinWatch {
  #seen = new Map<number, Seen>();

  /**
   * Looks at what the threads of a server work on.
   * @returns at how many looks in a row, this one included, the same thread was found spinning on the same request
   */
  look(pid: number, work: readonly Work[], atMs: number = performance.now()): number {
    const seen = new Map<number, Seen>();
    let most = 0;
    for (const { unique, tid } of work) {
      const cpuMs = tid === 0 ? null : cpuTimeMs(pid, tid);
      if (cpuMs === null) continue;
      const last = this.#seen.get(tid);
      const isSame = last?.unique === unique && cpuMs - last.cpuMs >= SPINNING_SHARE * (atMs - last.atMs);
      const looks = isSame ? last.looks + 1 : 0;
      seen.set(tid, { unique, cpuMs, atMs, looks });
      most = Math.max(most, looks);
    }
    this.#seen = seen;
    return most;
  }
}

/** Processor time of a thread so far; null where it is gone. */
function cpuTimeMs(pid: number, tid: number): number | null {
  try {
    const stat = readFileSync(`/proc/${pid}/task/${tid}/stat`, 'latin1');
    // the command may hold anything, brackets too
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
  } catch {
    return null;
  }
}
