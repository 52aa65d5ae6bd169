/** The state of a torture: the buses that must live, and the active faults, each at most once at a time. */
import type { Bus } from './bus.js';
import type { Fault } from './faults/fault.js';
import type { Journal } from './journal.js';
import type { Random } from './random.js';
import type { Stage } from './stage.js';

export class Scene {
  readonly stage: Stage;
  readonly journal: Journal;
  /** buses that must live to the end */
  readonly buses: Bus[] = [];
  /** the chosen faults that can be made here */
  readonly faults: readonly Fault[];
  readonly #standing = new Set<Fault>();
  readonly #undoing = new Set<() => Promise<void>>();

  constructor(stage: Stage, journal: Journal, faults: readonly Fault[]) {
    this.stage = stage;
    this.journal = journal;
    this.faults = faults;
    stage.undo.defer(async () => {
      for (const undo of this.#undoing) await undo().catch(() => {});
    });
  }

  get living(): Bus[] {
    return this.buses.filter(({ isLost }) => !isLost);
  }

  /** The faults that are not active now. */
  free(names?: readonly string[]): Fault[] {
    return this.faults.filter((fault) => !this.#standing.has(fault) && (names?.includes(fault.name) ?? true));
  }

  /** Makes the fault, keeps it active during some work, and undoes it even if the work fails. */
  async with(fault: Fault, bus: Bus, random: Random, act?: () => Promise<void>): Promise<void> {
    this.#standing.add(fault);
    try {
      const made = await fault.begin(bus, random);
      this.#undoing.add(made.undo);
      try {
        await (act ?? made.during)();
      } finally {
        await made.undo();
        this.#undoing.delete(made.undo);
        this.journal.end(made.standing);
      }
      if (act === undefined) await made.after?.();
    } finally {
      this.#standing.delete(fault);
    }
  }
}
