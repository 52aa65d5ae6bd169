/**
 * What a bus counts, as GET /counters answers it. Somebody may ask every second, of a bus with hundreds of vbds: so
 * nothing here waits for an image or a process, or takes time for a vbd that was not used.
 */
import { fstatSync, readFileSync } from 'node:fs';
import type { BusCounters, BusState, VbdCounters } from '../control/interface.js';
import { AllCounters } from '../ledger/counters.js';
import type { Ledger } from '../ledger/ledger.js';
import { ProcessWatch } from './process-watch.js';
import { RequestsInProgress } from './requests-in-progress.js';

/** A file of the bus: a vbd, or a partition of one. */
export type CountedFile = Pick<
  VbdCounters,
  'vdev' | 'disk' | 'driver' | 'image' | 'mode' | 'size' | 'state' | 'passthrough' | 'broken' | 'imageState'
> & { readonly nodeId: number; readonly ledgerIndex: number };

export interface CountedBus {
  readonly name: string;
  readonly path: string;
  /** device of the mount, as `MAJOR:MINOR`; empty if not known */
  readonly mountDev: string;
  readonly state: BusState;
  readonly restarts: number | null;
  readonly keeperPid: number | null;
  readonly serverPid: number | null;
  readonly files: readonly CountedFile[];
}

export class BusCounting {
  readonly #ledger: Ledger;
  readonly #statsFd: number;
  readonly #processes = new ProcessWatch();
  readonly #requests = new RequestsInProgress();

  constructor(ledger: Ledger, statsFd: number) {
    this.#ledger = ledger;
    this.#statsFd = statsFd;
  }

  count(bus: CountedBus): BusCounters {
    const [keeper, server] = [this.#processes.of(bus.keeperPid), this.#processes.of(bus.serverPid)];
    // next to the processor times: their rates are divided by it
    const monotonicMs = Number(process.hrtime.bigint() / 1000n) / 1000;
    const counters = new AllCounters(this.#statsFd);
    const opens = this.#ledger.countHandles();
    this.#requests.look(this.#ledger.work(), monotonicMs);
    const vbds = bus.files.map(({ nodeId, ledgerIndex, ...file }): VbdCounters => {
      const { count: inProgress, oldestMs } = this.#requests.of(nodeId);
      return {
        ...file,
        id: nodeId,
        opens: opens.get(nodeId) ?? 0,
        inProgress,
        oldestMs: Math.round(oldestMs),
        flushErrors: this.#ledger.flushErrors(ledgerIndex).count,
        ...counters.of(ledgerIndex),
      };
    });
    const { name, path, state, restarts } = bus;
    // the memfd of the counters lives as long as the run of the bus, also in a server whose keeper has died
    const run = String(fstatSync(this.#statsFd).ino);
    return { bus: name, path, run, monotonicMs, state, restarts, keeper, server, waiting: waitingOn(bus), vbds };
  }
}

/** The requests of the whole connection, as the kernel counts them. Null where fusectl is not mounted, or not ours. */
function waitingOn({ mountDev }: CountedBus): number | null {
  const [, minor] = mountDev.split(':');
  if (minor === undefined) return null;
  try {
    const waiting = Number.parseInt(readFileSync(`/sys/fs/fuse/connections/${minor}/waiting`, 'utf8'), 10);
    return Number.isSafeInteger(waiting) && waiting >= 0 ? waiting : null;
  } catch {
    return null;
  }
}
