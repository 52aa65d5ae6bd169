/** The attaches that are under way. The ending of the bus aborts them, and waits for them. */
import { within } from '../../system/within.js';
import type { CopyWatcher } from '../control/progress.js';

/** how long to wait for aborted attaches: the disk that they wait for may hang */
const PATIENCE_MS = 5_000;

export class RunningAttaches {
  readonly #attaches = new Map<AbortController, Promise<unknown>>();

  /**
   * Runs an attach.
   * @param work gets a signal that is aborted when its client goes away, or by `abortAll`
   */
  run<Watcher extends CopyWatcher, Result>(
    watcher: Watcher,
    work: (watcher: Watcher) => Promise<Result>,
  ): Promise<Result> {
    const own = new AbortController();
    const attach = work({ ...watcher, signal: AbortSignal.any([watcher.signal, own.signal]) });
    this.#attaches.set(own, attach);
    return attach.finally(() => this.#attaches.delete(own));
  }

  /** Aborts all attaches. Resolves when they have ended, or after some seconds. */
  async abortAll(reason: Error): Promise<void> {
    const attaches = [...this.#attaches];
    if (attaches.length === 0) return;
    for (const [controller] of attaches) controller.abort(reason);
    await within(Promise.allSettled(attaches.map(([, attach]) => attach)), PATIENCE_MS, undefined);
  }
}
