/**
 * Writes files in the runtime directory for processes that cannot ask the bus: bus.json, its links in ram/, its socket.
 * The bus itself does not need them: if one cannot be written (the directory is full, read-only or gone), the bus goes
 * on, says so in `show`, and writes the file as soon as possible.
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
  /** by name: only the last state of each file counts */
  readonly #due = new Map<string, Due>();
  #timer: NodeJS.Timeout | null = null;
  #isRetrying = false;

  /** The reason why a file may be out of date, as text; null if all files are written. */
  get trouble(): string | null {
    const [first] = this.#due;
    return first === undefined ? null : `${first[0]}: ${first[1].reason}`;
  }

  /** Whether the last state of a file is not written yet. */
  isDue(what: string): boolean {
    return this.#due.has(what);
  }

  /**
   * Writes a file, now or later. Never throws.
   * @param what the name of the file: a later attempt replaces one that failed
   * @param again writes it later; default: `write`
   */
  attempt(what: string, write: () => void, again: () => void | Promise<void> = write): void {
    try {
      write();
    } catch (error) {
      this.failed(what, error, again);
      return;
    }
    this.done(what);
    // this write worked, so others may work too
    if (this.#due.size > 0) setImmediate(() => void this.retry());
  }

  /** The file is written, or need not be written any more. */
  done(what: string): void {
    if (!this.#due.delete(what) || this.#due.size > 0) return;
    logEvent({ event: 'bookkeeping', reason: null });
    this.#stop();
  }

  /** The file could not be written; `again` tries it again. */
  failed(what: string, error: unknown, again: () => void | Promise<void>): void {
    const reason = error instanceof Error ? error.message : String(error);
    const isNews = this.#due.size === 0;
    this.#due.set(what, { reason, again });
    this.#timer ??= setInterval(() => void this.retry(), RETRY_MS).unref();
    if (isNews) logEvent({ event: 'bookkeeping', reason: `${what}: ${reason}` });
  }

  /** Tries all due writes again. */
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
      // if it differs, the file has changed meanwhile, and that write failed too
      if (this.#due.get(what) === due) this.done(what);
    } catch (error) {
      if (this.#due.get(what) === due) this.failed(what, error, due.again);
    }
  }

  /** The bus ends: tries nothing any more. */
  end(): void {
    this.#due.clear();
    this.#stop();
  }

  #stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }
}
