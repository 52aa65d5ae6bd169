/**
 * What the processes of a bus use, as the bus reports it. The proportional memory is measured at most every ten seconds:
 * the kernel walks all pages of the process for it, which may have gigabytes of ram images mapped.
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

  /** @returns null if there is no such process */
  async of(pid: number | null): Promise<ProcessCounters | null> {
    const usage = pid === null ? null : readUsage(pid);
    if (pid === null || usage === null) return null;
    return { pid, ...usage, pssBytes: await this.#pssOf(pid) };
  }

  async #pssOf(pid: number): Promise<number | null> {
    const nowMs = performance.now();
    const known = this.#measured.get(pid);
    if (known !== undefined && nowMs - known.sinceMs < PSS_EVERY_MS) return known.pssBytes;
    for (const [other, { sinceMs }] of this.#measured) {
      if (nowMs - sinceMs > 2 * PSS_EVERY_MS) this.#measured.delete(other);
    }
    // who asks meanwhile gets the old value
    const measured: Measured = { sinceMs: nowMs, pssBytes: known?.pssBytes ?? null };
    this.#measured.set(pid, measured);
    measured.pssBytes = await readPss(pid);
    return measured.pssBytes;
  }
}
