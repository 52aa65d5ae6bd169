/**
 * The activity on each vbd: at most one at a time. An activity belongs to the client that asked for it. When that
 * client goes away, or another client takes over by force, the activity is cancelled and undone.
 *
 *      idle ──► detaching, saving, resetting, swapping, rereading, resizing, committing ──► idle
 */
import { FusetapError } from '../../../drivers/errors.js';
import { within } from '../../../system/within.js';
import type { Vbd } from './vbd.js';

export type ActivityKind = 'detaching' | 'saving' | 'resetting' | 'swapping' | 'rereading' | 'resizing' | 'committing';

/** how long to wait for a cancelled activity: the disk that it waits for may hang */
const PATIENCE_MS = 5_000;

/** How messages describe it. */
const WORDS: Readonly<Record<ActivityKind, string>> = {
  detaching: 'is being detached already',
  saving: 'is being saved',
  resetting: 'is being reset',
  swapping: 'is being given another image',
  rereading: 'is having its partition table read',
  resizing: 'is being resized',
  committing: 'is being committed to its base',
};

const HINTS: Readonly<Record<ActivityKind, string>> = {
  detaching: 'wait for that, or use detach --force',
  saving: 'wait until the save has ended, or end it with detach --force',
  resetting: 'wait until the reset has ended, or end it with detach --force',
  swapping: 'wait until the new image is in place',
  rereading: 'wait until the new partitions are in place',
  resizing: 'wait until it has its new size',
  committing: 'wait until the commit has ended, or end it with Ctrl-C or detach --force',
};

interface Activity {
  readonly kind: ActivityKind;
  readonly cancel: AbortController;
  /** resolves when it has ended, with or without an error */
  over: Promise<void>;
}

export class Activities {
  readonly #bus: string;
  readonly #current = new WeakMap<Vbd, Activity>();

  constructor(bus: string) {
    this.#bus = bus;
  }

  isActive(vbd: Vbd): boolean {
    return this.#current.has(vbd);
  }

  /** @throws FusetapError BUSY if an activity, or one of the given kinds, is under way on the vbd */
  refuse(vbd: Vbd, kinds?: readonly ActivityKind[]): void {
    const kind = this.#current.get(vbd)?.kind ?? (vbd.removal && 'detaching');
    if (kind === undefined || kinds?.includes(kind) === false) return;
    throw new FusetapError('BUSY', `${vbd.vdev} on bus ${this.#bus} ${WORDS[kind]}`, { hint: HINTS[kind] });
  }

  /**
   * Runs an activity on a vbd, unless one is under way.
   * @param signal aborted when the client that asked for it goes away
   * @param act gets a signal that is also aborted when `cancel` is called
   * @throws FusetapError BUSY; errors of the act
   */
  async run<Result>(
    vbd: Vbd,
    kind: ActivityKind,
    signal: AbortSignal,
    act: (signal: AbortSignal) => Promise<Result>,
  ): Promise<Result> {
    this.refuse(vbd);
    const cancel = new AbortController();
    const activity: Activity = { kind, cancel, over: Promise.resolve() };
    this.#current.set(vbd, activity);
    const result = act(AbortSignal.any([signal, cancel.signal]));
    activity.over = result.then(nothing, nothing);
    try {
      return await result;
    } catch (error) {
      throw cancel.signal.aborted ? cancel.signal.reason : error;
    } finally {
      if (this.#current.get(vbd) === activity) this.#current.delete(vbd);
    }
  }

  /**
   * Cancels the activity on the vbd. Resolves when it is undone, or finished if it was past its point of no return; or
   * after some seconds, if its disk hangs.
   */
  async cancel(vbd: Vbd, reason: Error = this.#takenByForce(vbd)): Promise<void> {
    const activity = this.#current.get(vbd);
    if (activity === undefined) return;
    activity.cancel.abort(reason);
    await within(activity.over, PATIENCE_MS, undefined);
    if (this.#current.get(vbd) === activity) this.#current.delete(vbd);
  }

  #takenByForce({ vdev }: Vbd): FusetapError {
    return new FusetapError('BUSY', `${vdev} on bus ${this.#bus} was detached by force meanwhile`);
  }
}

const nothing = (): void => {};
