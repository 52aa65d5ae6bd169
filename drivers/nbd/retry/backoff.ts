/**
 * How long to wait before the next attempt to connect. A server may accept each connection and close it at one particular
 * request, which is sent again on the next one. So a connection that was made proves nothing: the pauses grow until one
 * has answered requests for some time.
 */
const PAUSES_MS = [0, 100, 200, 500, 1_000, 2_000, 5_000];
/** a connection that has lived so long, and has answered, has proved itself */
export const STEADY_MS = 10_000;

export class Backoff {
  /** attempts since a connection has proved itself */
  #tries = 0;
  #connectedAtMs = 0;

  /** Counts an attempt. @returns how long to wait before it */
  nextPauseMs(): number {
    const pauseMs = PAUSES_MS[Math.min(this.#tries, PAUSES_MS.length - 1)] as number;
    this.#tries += 1;
    return pauseMs;
  }

  connected(nowMs: number): void {
    this.#connectedAtMs = nowMs;
  }

  /** @param answered how many requests the connection has answered */
  lost(nowMs: number, answered: number): void {
    if (answered > 0 && nowMs - this.#connectedAtMs >= STEADY_MS) this.#tries = 0;
  }
}
