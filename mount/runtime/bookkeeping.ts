/**
 * What a process of a bus writes in the runtime directory for those that cannot ask it: bus.json, its links in ram/, its
 * socket. The bus does not live on it: where it cannot be written (the directory is full, read-only or gone), the bus goes
 * on, says so in `show`, and writes it as soon as that can be done.
 *
 *      attempt ─► written
 *            └─► failed ─► kept as due ─► tried again with each later change, and once a second ─► written
 */
import { logEvent } from './log.js';

const RETRY_MS = 1_000;

interface Due {
  readonly reason: string;
  readonly again: () => void | Promise<void>;
}

export class Bookkeeping {
  /** by what it is: only the last state of each counts */
  readonly #due = new Map<string, Due>();
  #timer: NodeJS.Timeout | null = null;
  #isRetrying = false;

  /** Why what others read may be old, in words; null: all is written. */
  get trouble(): string | null {
    const [first] = this.#due;
    return first === undefined ? null : `${first[0]}: ${first[1].reason}`;
  }

  /** Whether the last state of it is still to be written. */
  isDue(what: string): boolean {
    return this.#due.has(what);
  }

  /**
   * Writes something, now or later. Never throws.
   * @param what names it: a later attempt takes the place of one that failed
   * @param again how it is written later, where that is done otherwise
   */
  attempt(what: string, write: () => void, again: () => void | Promise<void> = write): void {
    try {
      write();
    } catch (error) {
      this.failed(what, error, again);
      return;
    }
    this.done(what);
    // there may be room again
    if (this.#due.size > 0) setImmediate(() => void this.retry());
  }

  /** It is written, or need not be any more. */
  done(what: string): void {
    if (!this.#due.delete(what) || this.#due.size > 0) return;
    logEvent({ event: 'bookkeeping', reason: null });
    this.#stop();
  }

  /** It could not be written, and `again` tries it again. */
  failed(what: string, error: unknown, again: () => void | Promise<void>): void {
    const reason = error instanceof Error ? error.message : String(error);
    const isNews = this.#due.size === 0;
    this.#due.set(what, { reason, again });
    this.#timer ??= setInterval(() => void this.retry(), RETRY_MS).unref();
    if (isNews) logEvent({ event: 'bookkeeping', reason: `${what}: ${reason}` });
  }

  /** Tries again all that is due. */
  async retry(): Promise<void> {
    if (this.#isRetrying) return;
    this.#isRetrying = true;
    try {
      for (const [what, due] of [...this.#due]) await this.#retryOne(what, due);
    } finally {
      this.#isRetrying = false;
    }
  }

  async #retryOne(what: string, due: Due): Promise<void> {
    try {
      await due.again();
      // else it has changed meanwhile, and that could not be written either
      if (this.#due.get(what) === due) this.done(what);
    } catch (error) {
      if (this.#due.get(what) === due) this.failed(what, error, due.again);
    }
  }

  /** Nothing is tried any more: the bus ends. */
  end(): void {
    this.#due.clear();
    this.#stop();
  }

  #stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }
}
