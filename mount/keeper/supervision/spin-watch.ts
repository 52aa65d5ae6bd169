/**
 * Tells a thread that spins from one that waits for a disk. Both work on the same request for long, but only a thread
 * that spins is always running, or in the queue for a processor. Time in the queue counts, because on a busy machine a
 * thread that spins runs only a small part of the time.
 */
import { readFileSync } from 'node:fs';
import { statFields } from '../../../system/proc.js';
import type { Work } from '../../ledger/ledger.js';

/** the least share of the time between two looks; a thread that waits only for a processor has a share of 1 */
const SPINNING_SHARE = 0.5;
/** 1 / USER_HZ, which is the same on all architectures that Node runs on */
const TICK_MS = 10;

interface Seen {
  readonly unique: number;
  readonly busyMs: number;
  readonly atMs: number;
  readonly looks: number;
}

export class SpinWatch {
  #seen = new Map<number, Seen>();

  /**
   * Looks at the requests that the threads of a server work on.
   * @returns how many looks in a row, with this one, found the same thread spinning on the same request
   */
  look(pid: number, work: readonly Work[], atMs: number = performance.now()): number {
    const seen = new Map<number, Seen>();
    let most = 0;
    for (const { unique, tid } of work) {
      const busyMs = tid === 0 ? null : busyTimeMs(pid, tid);
      if (busyMs === null) continue;
      const last = this.#seen.get(tid);
      const isSame = last?.unique === unique && busyMs - last.busyMs >= SPINNING_SHARE * (atMs - last.atMs);
      const looks = isSame ? last.looks + 1 : 0;
      seen.set(tid, { unique, busyMs, atMs, looks });
      most = Math.max(most, looks);
    }
    this.#seen = seen;
    return most;
  }
}

/** How long a thread has run or waited for a processor so far; null if it is gone. */
function busyTimeMs(pid: number, tid: number): number | null {
  try {
    // see Documentation/scheduler/sched-stats.rst: ns on a processor, ns in its queue, number of time slices
    const [runNs = 0, queueNs = 0] = readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'latin1')
      .split(' ')
      .map(Number);
    return (runNs + queueNs) / 1e6;
  } catch {
    // a kernel without SCHED_INFO
    return cpuTimeMs(pid, tid);
  }
}

/** Processor time of a thread so far; null if it is gone. */
function cpuTimeMs(pid: number, tid: number): number | null {
  try {
    const fields = statFields(readFileSync(`/proc/${pid}/task/${tid}/stat`, 'latin1'));
    return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
  } catch {
    return null;
  }
}
