/** When a command that serves until it is told otherwise ends. */
import { watchReader } from '../../mount/client/watching/reader-left.js';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Resolves with the first signal that ends programs, or when the reader of stdout has left. */
export async function untilEnded(): Promise<void> {
  await new Promise<void>((resolve) => {
    const end = (): void => {
      unwatch();
      for (const signal of SIGNALS) process.off(signal, end);
      resolve();
    };
    const unwatch = watchReader(end);
    for (const signal of SIGNALS) process.on(signal, end);
  });
}
