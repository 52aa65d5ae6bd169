/** Lets callers wait until the kernel forgets a node. */
export class ForgetWaiters {
  readonly #waiting = new Map<number, () => void>();

  /** Resolves to true when the node is forgotten, to false after `timeoutMs` or when the signal is aborted. */
  wait(nodeId: number, timeoutMs: number, signal?: AbortSignal): Promise<boolean> {
    return new Promise((resolve) => {
      const finish = (forgotten: boolean): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', giveUp);
        this.#waiting.delete(nodeId);
        resolve(forgotten);
      };
      const giveUp = (): void => finish(false);
      const timer = setTimeout(giveUp, timeoutMs);
      signal?.addEventListener('abort', giveUp);
      this.#waiting.set(nodeId, () => finish(true));
    });
  }

  /** The node is forgotten. */
  tell(nodeId: number): void {
    this.#waiting.get(nodeId)?.();
  }
}
