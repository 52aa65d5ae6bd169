/** A second fault: it is made, is active for a while, and is undone. */
import type { Bus } from '../bus.js';
import type { Standing } from '../journal.js';
import type { Random } from '../random.js';
import type { Stage } from '../stage.js';

export interface Fault {
  readonly name: string;
  /** a short description for --help */
  readonly about: string;
  /** Why this machine cannot make it; null if it can. */
  whyNot(stage: Stage): Promise<string | null>;
  /** Prepares a bus for it, once. @throws Error if that fails: the fault is then left out */
  prepare?(bus: Bus): Promise<void>;
  /** Makes it, while nothing else disturbs the server of the bus. */
  begin(bus: Bus, random: Random): Promise<Made>;
}

export interface Made {
  readonly standing: Standing;
  /** The work that must succeed while it is active. @throws Error if it fails */
  during(): Promise<void>;
  /** Undoes it; a second call does nothing. */
  undo(): Promise<void>;
  /** Checks what must be true after the undo. @throws Error if it is not */
  after?(): Promise<void>;
}

export const always = async (): Promise<null> => null;
