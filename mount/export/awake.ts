/**
 * Keeps the event loop from sleeping for a moment after the last answer: most clients send the next request within this
 * time, and to wake a process takes longer than to answer it. It costs processor time only while a client waits for each
 * answer before it asks again.
 */

/** how long it looks for another request */
const AWAKE_MS = 0.1;

export class Awake {
  #untilMs = 0;
  #isAwake = false;

  /** Nothing is under way: the next request may come at once. */
  stay(): void {
    this.#untilMs = performance.now() + AWAKE_MS;
    if (this.#isAwake) return;
    this.#isAwake = true;
    setImmediate(this.#turn);
  }

  /** Others need the processor: a request is under way. */
  rest(): void {
    this.#untilMs = 0;
  }

  readonly #turn = (): void => {
    this.#isAwake = performance.now() < this.#untilMs;
    if (this.#isAwake) setImmediate(this.#turn);
  };
}
