/** What is under way in a torture: the buses that live on, and which faults stand, each at most once at a time. */
import type { Bus } from './bus.js';
import type { Fault } from './faults/fault.js';
import type { Journal } from './journal.js';
import type { Random } from './random.js';
import type { Stage } from './stage.js';

export class Scene {
  readonly stage: Stage;
  readonly journal: Journal;
  /** that must live to the end */
  readonly buses: Bus[] = [];
  /** those that can be made here and were asked for */
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

  /** Those that do not stand now. */
  free(names?: readonly string[]): Fault[] {
    return this.faults.filter((fault) => !this.#standing.has(fault) && (names?.includes(fault.name) ?? true));
  }

  /** Makes the fault, has it stand while something is done, and undoes it whatever comes of that. */
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
