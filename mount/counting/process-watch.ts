/**
 * What the processes of a bus use, as the bus reports it. The proportional memory is measured at most every ten seconds,
 * and nobody waits for it: the kernel walks all pages of the process for it, which may have gigabytes of ram images mapped.
 */
import { readPss, readUsage } from '../../system/process-usage.js';
import type { ProcessCounters } from '../control/interface.js';

const PSS_EVERY_MS = 10_000;

interface Measured {
  readonly sinceMs: number;
  pssBytes: number | null;
}

export class ProcessWatch {
  readonly #measured = new Map<number, Measured>();

  readonly #measure: typeof readPss;

  /** @param measure for tests: reads the proportional memory */
  constructor(measure: typeof readPss = readPss) {
    this.#measure = measure;
  }

  /**
   * Its proportional memory is that of the last measurement; null until the first one has ended.
   * @returns null if there is no such process
   */
  of(pid: number | null): ProcessCounters | null {
    const usage = pid === null ? null : readUsage(pid);
    if (pid === null || usage === null) return null;
    return { pid, ...usage, pssBytes: this.#pssOf(pid) };
  }

  #pssOf(pid: number): number | null {
    const nowMs = performance.now();
    const known = this.#measured.get(pid);
    if (known !== undefined && nowMs - known.sinceMs < PSS_EVERY_MS) return known.pssBytes;
    for (const [other, { sinceMs }] of this.#measured) {
      if (nowMs - sinceMs > 2 * PSS_EVERY_MS) this.#measured.delete(other);
    }
    const measured: Measured = { sinceMs: nowMs, pssBytes: known?.pssBytes ?? null };
    this.#measured.set(pid, measured);
    void this.#measure(pid).then((pssBytes) => {
      measured.pssBytes = pssBytes;
    });
    return measured.pssBytes;
  }
}
