/**
 * What a bus counts, as GET /counters answers it. Somebody may ask every second, of a bus with hundreds of vbds: so
 * nothing here waits for an image or a process, or takes time for a vbd that was not used.
 */
import { fstatSync, readFileSync } from 'node:fs';
import type { BusCounters, BusState, VbdCounters } from '../control/interface.js';
import { CountersReader } from '../ledger/counters.js';
import type { Ledger } from '../ledger/ledger.js';
import { Changes } from './changes.js';
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
  readonly #counters: CountersReader;
  readonly #processes = new ProcessWatch();
  readonly #changes = new Changes();
  readonly #requests = new RequestsInProgress();

  constructor(ledger: Ledger, statsFd: number) {
    this.#ledger = ledger;
    this.#statsFd = statsFd;
    this.#counters = new CountersReader(statsFd);
  }

  /** A new vbd has this place in the ledger: its counters begin at nothing. */
  reset(ledgerIndex: number): void {
    this.#counters.reset(ledgerIndex);
  }

  /** @param since the mark of an earlier answer: only the vbds of which something has changed since then are told */
  count(bus: CountedBus, since?: string): BusCounters {
    const [keeper, server] = [this.#processes.of(bus.keeperPid), this.#processes.of(bus.serverPid)];
    // next to the processor times: their rates are divided by it
    const monotonicMs = Number(process.hrtime.bigint() / 1000n) / 1000;
    this.#counters.findPages();
    const opens = this.#ledger.countHandles();
    this.#requests.look(this.#ledger.work(), monotonicMs);
    const all = bus.files.map((file) => this.#countFile(file, opens.get(file.nodeId) ?? 0));
    const { name, path, state, restarts } = bus;
    // the memfd of the counters lives as long as the run of the bus, also in a server whose keeper has died
    const run = String(fstatSync(this.#statsFd).ino);
    const now = { bus: name, path, run, monotonicMs, state, restarts, keeper, server, waiting: waitingOn(bus) };
    return { ...now, ...this.#changes.since(since, all) };
  }

  #countFile(file: CountedFile, opens: number): VbdCounters {
    const { count: inProgress, oldestMs } = this.#requests.of(file.nodeId);
    const { read, write, flush, discard } = this.#counters.of(file.ledgerIndex);
    // each by its name: copying with `...` takes ten times as long, and there may be hundreds
    return {
      vdev: file.vdev,
      disk: file.disk,
      driver: file.driver,
      image: file.image,
      mode: file.mode,
      size: file.size,
      state: file.state,
      passthrough: file.passthrough,
      broken: file.broken,
      imageState: file.imageState,
      id: file.nodeId,
      opens,
      inProgress,
      oldestMs: Math.round(oldestMs),
      flushErrors: this.#ledger.flushErrors(file.ledgerIndex).count,
      read,
      write,
      flush,
      discard,
    };
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
