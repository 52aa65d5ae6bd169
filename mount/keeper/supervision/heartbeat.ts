/**
 * Finds out whether a server still works: its main thread must answer, and no thread may spin. A request that waits for
 * a disk does not make a server silent; SIGSTOP does.
 *
 * Beats are counted, not time: while the keeper itself was stopped, no beat passed.
 */
import type { Work } from '../../ledger/ledger.js';
import type { BusEvent } from '../../runtime/log-line.js';
import type { ServerProcess } from './server-process.js';
import { SpinWatch } from './spin-watch.js';

const BEAT_MS = 5_000;
/** how long a server may be silent, or spin */
export const DEFAULT_SILENCE_LIMIT_MS = 30_000;

export class Heartbeat {
  readonly everyMs: number;
  readonly #limitMs: number;
  readonly #spinWatch = new SpinWatch();
  /** beats since the server last said anything */
  #silentBeats = 0;

  /** @param limitMs how long a server may be silent, or spin */
  constructor(limitMs: number) {
    this.#limitMs = limitMs;
    this.everyMs = Math.min(BEAT_MS, limitMs / 3);
  }

  /** Another server was installed: the count begins again. */
  reset(): void {
    this.#silentBeats = 0;
  }

  /**
   * One beat.
   * @param work the requests that the server works on now
   * @returns why the server has to be killed; null if it works
   */
  beat(server: ServerProcess, work: readonly Work[]): BusEvent | null {
    const pid = server.pid ?? 0;
    const spinningMs = (pid === 0 ? 0 : this.#spinWatch.look(pid, work)) * this.everyMs;
    if (spinningMs >= this.#limitMs) return { event: 'server-spins', pid, spinningMs: Math.round(spinningMs) };
    const silentForMs = server.silentForMs();
    // a server that answered the last beat was heard almost one beat ago
    this.#silentBeats = silentForMs < 1.5 * this.everyMs ? 0 : this.#silentBeats + 1;
    if (this.#silentBeats === 0) return null;
    // the first silent beat sends the ping, so only the beats after it count as unanswered
    if ((this.#silentBeats - 1) * this.everyMs >= this.#limitMs) {
      return { event: 'server-silent', pid, silentMs: Math.round(silentForMs) };
    }
    server.request<'ping'>({ op: 'ping' }).catch(() => {});
    return null;
  }
}
