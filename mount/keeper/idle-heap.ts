/**
 * Keeps the heap of a process that lives for months near the size it needs. V8 does not collect garbage, or free pages
 * that are half full of it, while it finds room: a keeper's heap doubles within a few hundred requests, and often stays
 * so when the requests have ended.
 */
import { getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

const LOOK_MS = 5_000;
/** a collection takes 20 ms in a keeper, so a smaller growth is ignored */
const GROWN_BYTES = 2 << 20;

/** Looks every few seconds, and collects garbage if the heap has grown. Does not keep the process alive. */
export function collectWhenGrown(lookMs = LOOK_MS): void {
  setFlagsFromString('--expose-gc');
  // V8 returns a page to the system only when it is empty
  setFlagsFromString('--compact-on-every-full-gc');
  const collect = runInNewContext('gc') as () => void;
  // process.memoryUsage() opens a file, and throws if no descriptor is left for it
  const usedBytes = (): number => getHeapStatistics().used_heap_size;
  let neededBytes = usedBytes();
  const look = (): void => {
    if (usedBytes() - neededBytes < GROWN_BYTES) return;
    collect();
    neededBytes = usedBytes();
  };
  setInterval(look, lookMs).unref();
}
