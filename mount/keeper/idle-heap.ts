/**
 * Keeps a process that lives for months near the memory it needs. V8 leaves garbage, and pages half full of it, where
 * they are for as long as it finds room: a keeper's heap doubles within a few hundred requests, and often stays so when
 * nobody asks for anything any more.
 */
import { getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

const LOOK_MS = 5_000;
/** collecting takes a keeper 20 ms, so not for less */
const GROWN_BYTES = 2 << 20;

/** Looks every few seconds, and has garbage collected where the heap has grown. Does not keep the process alive. */
export function collectWhenGrown(lookMs = LOOK_MS): void {
  setFlagsFromString('--expose-gc');
  // a page goes back to the system only when nothing is left in it
  setFlagsFromString('--compact-on-every-full-gc');
  const collect = runInNewContext('gc') as () => void;
  // process.memoryUsage() opens a file, and throws where there is no descriptor left for it
  const usedBytes = (): number => getHeapStatistics().used_heap_size;
  let neededBytes = usedBytes();
  const look = (): void => {
    if (usedBytes() - neededBytes < GROWN_BYTES) return;
    collect();
    neededBytes = usedBytes();
  };
  setInterval(look, lookMs).unref();
}
