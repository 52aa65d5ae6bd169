/**
 * Lets go of several things, one after the other. What fails is logged, and keeps none of the others from being let go.
 * @param whose for the log
 */
export function letGoOfAll(whose: string, steps: readonly (() => unknown)[]): void {
  for (const step of steps) {
    try {
      step();
    } catch (error) {
      console.error(`letting go of what ${whose} had:`, error);
    }
  }
}
