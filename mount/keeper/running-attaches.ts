import { within } from '../../system/within.js';
import type { CopyWatcher } from '../control/progress.js';

/** for how long an act that was given up is waited for: what it waits for may hang */
const PATIENCE_MS = 5_000;

export class RunningAttaches {
  readonly #acts = new Map<AbortController, Promise<unknown>>();

  /**
   * Does something long.
   * @param work is told when to give up: when its client went away, or `giveUp` was called
   */
  run<Watcher extends CopyWatcher, Result>(
    watcher: Watcher,
    work: (watcher: Watcher) => Promise<Result>,
  ): Promise<Result> {
    const own = new AbortController();
    const act = work({ ...watcher, signal: AbortSignal.any([watcher.signal, own.signal]) });
    this.#acts.set(own, act);
    return act.finally(() => this.#acts.delete(own));
  }

  /** Has all acts give up for that reason; resolves when they have ended, or do not within some seconds. */
  async abortAll(reason: Error): Promise<void> {
    const acts = [...this.#acts];
    if (acts.length === 0) return;
    for (const [controller] of acts) controller.abort(reason);
    await within(Promise.allSettled(acts.map(([, act]) => act)), PATIENCE_MS, undefined);
  }
}
