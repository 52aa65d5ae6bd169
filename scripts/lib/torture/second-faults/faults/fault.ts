/** What a second fault is: something that is made, stands for a while, and is undone. */
import type { Bus } from '../bus.js';
import type { Standing } from '../journal.js';
import type { Random } from '../random.js';
import type { Stage } from '../stage.js';

export interface Fault {
  readonly name: string;
  /** in a few words, for --help */
  readonly about: string;
  /** Why this machine cannot make it; null where it can. */
  whyNot(stage: Stage): Promise<string | null>;
  /** Makes what it needs on a bus, once. @throws Error where that cannot be made: the fault is then left out */
  prepare?(bus: Bus): Promise<void>;
  /** Makes it, while nobody else disturbs the server of the bus. */
  begin(bus: Bus, random: Random): Promise<Made>;
}

export interface Made {
  readonly standing: Standing;
  /** What is done, and must go on, while it stands. @throws Error what went wrong */
  during(): Promise<void>;
  /** Takes it back; a second time does nothing. */
  undo(): Promise<void>;
  /** What must hold when it was taken back. @throws Error what went wrong */
  after?(): Promise<void>;
}

export const always = async (): Promise<null> => null;
