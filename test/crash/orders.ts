/** In which order calls are done that were made at the same time. */
import { Random } from '../../scripts/lib/torture/second-faults/random.js';
import { mix } from './situations.js';

/**
 * @param seed 0: the order in which they were made; 1: the newest first; else at random
 * @returns tells which of the waiting calls is done next
 */
export function ordersOf(seed: number): (waiting: number) => number {
  if (seed === 0) return () => 0;
  if (seed === 1) return (waiting) => waiting - 1;
  const random = new Random(mix(seed));
  return (waiting) => random.below(waiting);
}
