/** Random numbers that can be had again: the seed is in the test's output, and FUSETAP_TEST_SEED sets it. */
import type { Test } from 'tap';

/** The seed of this run, printed. */
export function seedOf(t: Test): number {
  const seed = Number(process.env.FUSETAP_TEST_SEED ?? Date.now() % 2 ** 31);
  t.comment(`FUSETAP_TEST_SEED=${seed}`);
  return seed;
}

/** Whole numbers from 0 to below a limit, the same for the same seed (Park and Miller's generator). */
export function randomNumbers(seed: number): (below: number) => number {
  let state = (seed % 2147483646) + 1;
  return (below) => {
    state = (state * 48271) % 2147483647;
    return state % below;
  };
}
