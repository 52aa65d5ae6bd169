/** Lets callers wait until the kernel forgets a node. */
export class ForgetWaiters {
  readonly #waiting = new Map<number, () => void>();

  /** Resolves to true when the node is forgotten, to false after `timeoutMs`. */
  wait(nodeId: number, timeoutMs: number): Promise<boolean> {
    return new Promise((resolve) => {
      const finish = (forgotten: boolean): void => {
        clearTimeout(timer);
        this.#waiting.delete(nodeId);
        resolve(forgotten);
      };
      const timer = setTimeout(() => finish(false), timeoutMs);
      this.#waiting.set(nodeId, () => finish(true));
    });
  }

  /** The node is forgotten. */
  tell(nodeId: number): void {
    this.#waiting.get(nodeId)?.();
  }
}
