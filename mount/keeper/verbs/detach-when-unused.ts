/**
 * Detaches marked vbds when nobody uses them any more, as the kernel removes a loop device with autoclear.
 *
 *      marked ──► in use ──► no open handle at two looks in a row ──► detach, as for a client
 *                   ▲                                                   └─► BUSY: look again later
 *                   └───────────────────────────────────────────────────────┘
 *
 * The marks are in the keeper, and the open handles in the ledger, so both outlive the server. The ledger only tells when
 * to try: the kernel decides whether the vbd is unused, as for each detach. A look costs no system call.
 */
import type { DetachedVbd } from '../../control/interface.js';
import { tellAdministrator } from '../../ending/tell-administrator.js';
import { logEvent } from '../../runtime/log.js';
import type { BusParts } from '../vbds/bus-parts.js';
import type { Vbd } from '../vbds/vbd.js';
import { filesOf } from '../vbds/vbd-files.js';
import type { Detaching } from './detach.js';

const LOOK_EVERY_MS = 250;
/** how many looks in a row must see no open handle: a client that detaches the vbd itself comes first */
const LOOKS_UNUSED = 2;
/** a try hides the vbd for a moment, or searches all processes, so tries that fail become rare */
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 60_000;

/** What is known about a marked vbd. */
interface Watched {
  unusedLooks: number;
  /** no try before this time */
  notBeforeMs: number;
  pauseMs: number;
  /** how often the server had been replaced at the last try: after that, records of open handles may be stale */
  restarts: number;
  /** the try that is under way */
  attempt: { readonly cancel: AbortController; readonly result: Promise<DetachedVbd | null> } | null;
}

export class DetachingWhenUnused {
  readonly #bus: BusParts;
  readonly #detaching: Detaching;
  readonly #detached: () => void;
  readonly #watched = new Map<Vbd, Watched>();
  readonly #lost: DetachedVbd[] = [];
  #timer: NodeJS.Timeout | null = null;

  /** @param detached called after each vbd that was detached here */
  constructor(bus: BusParts, detaching: Detaching, detached: () => void) {
    this.#bus = bus;
    this.#detaching = detaching;
    this.#detached = detached;
  }

  /** Marks a vbd. It stays marked until it is detached. */
  mark(vbd: Vbd): void {
    vbd.detachesWhenUnused = true;
    if (this.#watched.has(vbd)) return;
    const { restarts } = this.#bus.server;
    this.#watched.set(vbd, { unusedLooks: 0, notBeforeMs: 0, pauseMs: FIRST_PAUSE_MS, restarts, attempt: null });
    this.#timer ??= setInterval(() => this.#look(), LOOK_EVERY_MS).unref();
  }

  /**
   * Ends a try that is under way, because a client wants the vbd. Resolves when the try is undone.
   * @returns the detached vbd if the try could not be undone any more; otherwise null
   */
  async giveWay(vbd: Vbd): Promise<DetachedVbd | null> {
    const attempt = this.#watched.get(vbd)?.attempt;
    attempt?.cancel.abort(new Error('a client wants the vbd'));
    return (await attempt?.result) ?? null;
  }

  /** The vbds that were detached here although not all of their data is durable: no client was told. */
  get lost(): readonly DetachedVbd[] {
    return this.#lost;
  }

  #look(): void {
    const { vbds, ledger, failed, server } = this.#bus;
    for (const vbd of this.#watched.keys()) if (!vbds.has(vbd)) this.#watched.delete(vbd);
    if (this.#watched.size === 0 && this.#timer !== null) {
      clearInterval(this.#timer);
      this.#timer = null;
    }
    // without a server nobody can tell whether a vbd is in use
    if (failed || server.state !== 'running') return;
    const opens = ledger.countHandles();
    for (const [vbd, watched] of this.#watched) {
      const isOpen = filesOf(vbd).some(({ nodeId }) => opens.has(nodeId));
      watched.unusedLooks = isOpen ? 0 : watched.unusedLooks + 1;
      if (this.#shallTry(vbd, watched)) this.#try(vbd, watched);
    }
  }

  #shallTry(vbd: Vbd, watched: Watched): boolean {
    // a paused vbd is in use by the user who paused it, for example to copy its image
    if (watched.attempt !== null || vbd.removal || vbd.paused || this.#bus.activities.isActive(vbd)) return false;
    const { restarts } = this.#bus.server;
    const isNews = watched.unusedLooks === LOOKS_UNUSED || watched.restarts < restarts;
    if (isNews) watched.pauseMs = FIRST_PAUSE_MS;
    // before the first death of a server, the records of open handles are right
    const mayBeUnused = watched.unusedLooks >= LOOKS_UNUSED || restarts > 0;
    return isNews || (mayBeUnused && performance.now() >= watched.notBeforeMs);
  }

  #try(vbd: Vbd, watched: Watched): void {
    const cancel = new AbortController();
    watched.restarts = this.#bus.server.restarts;
    const choice = { force: false, waitMs: 0, signal: cancel.signal };
    const late = (): Promise<DetachedVbd | null> | null => vbd.removal?.catch(() => null) ?? null;
    const result = this.#detaching.detach(vbd, choice).catch(late);
    watched.attempt = { cancel, result };
    void result.then((gone) => {
      watched.attempt = null;
      watched.notBeforeMs = performance.now() + watched.pauseMs;
      watched.pauseMs = Math.min(2 * watched.pauseMs, LONGEST_PAUSE_MS);
      if (gone !== null) this.#end(gone);
    });
  }

  #end(gone: DetachedVbd): void {
    logEvent({ event: 'unused', vdev: gone.vdev });
    if (gone.error !== undefined) {
      this.#lost.push(gone);
      void tellAdministrator([gone]);
    }
    this.#detached();
  }
}
