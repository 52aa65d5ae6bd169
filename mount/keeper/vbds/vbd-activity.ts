/**
 * What is being done with each vbd as a whole: one thing at a time. It belongs to the client that asked for it: when that
 * goes away, or another act takes its place by force, it is given up, and what was begun is undone.
 *
 *      idle ──► detaching, saving, resetting, swapping ──► idle
 */
import { FusetapError } from '../../../drivers/errors.js';
import { within } from '../../../system/within.js';
import type { Vbd } from './vbd.js';

export type ActivityKind = 'detaching' | 'saving' | 'resetting' | 'swapping';

/** for how long an act that was given up is waited for: what it waits for may hang */
const PATIENCE_MS = 5_000;

/** What a message says of it. */
const WORDS: Readonly<Record<ActivityKind, string>> = {
  detaching: 'is being detached already',
  saving: 'is being saved',
  resetting: 'is being reset',
  swapping: 'is being given another image',
};

const HINTS: Readonly<Record<ActivityKind, string>> = {
  detaching: 'wait for that, or take its place with --force',
  saving: 'wait until the save has ended, or end it with detach --force',
  resetting: 'wait until the reset has ended, or end it with detach --force',
  swapping: 'wait until the new image is in place',
};

interface Activity {
  readonly kind: ActivityKind;
  readonly cancel: AbortController;
  /** resolves when nothing of it is under way any more, however it ended */
  over: Promise<void>;
}

export class Activities {
  readonly #bus: string;
  readonly #current = new WeakMap<Vbd, Activity>();

  constructor(bus: string) {
    this.#bus = bus;
  }

  /** @throws FusetapError BUSY where something, or something of the given kinds, is being done with the vbd */
  refuse(vbd: Vbd, kinds?: readonly ActivityKind[]): void {
    const kind = this.#current.get(vbd)?.kind ?? (vbd.removal && 'detaching');
    if (kind === undefined || kinds?.includes(kind) === false) return;
    throw new FusetapError('BUSY', `${vbd.vdev} on bus ${this.#bus} ${WORDS[kind]}`, { hint: HINTS[kind] });
  }

  /**
   * Does something with a vbd, unless something is being done with it.
   * @param signal the patience of the client that asked for it
   * @param act is given a signal that also ends when another act takes its place
   * @throws FusetapError BUSY; what the act throws
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
   * Gives up what is being done with the vbd. Resolves when it is undone, or finished where that was past undoing; or after
   * some seconds, where what it waits for hangs.
   */
  async cancel(vbd: Vbd, reason: Error = this.#takenByForce(vbd)): Promise<void> {
    const activity = this.#current.get(vbd);
    if (activity === undefined) return;
    activity.cancel.abort(reason);
    await within(activity.over, PATIENCE_MS, undefined);
    if (this.#current.get(vbd) === activity) this.#current.delete(vbd);
  }

  #takenByForce({ vdev }: Vbd): FusetapError {
    return new FusetapError('BUSY', `${vdev} on bus ${this.#bus} was taken away by force meanwhile`);
  }
}

const nothing = (): void => {};
