/** `fusetap top` on a terminal: looks at the buses at each interval, and draws. */
import type { BusWatch } from '../../mount/client/watching/bus-watch.js';
import type { BusRates } from '../../mount/client/watching/rates.js';
import { eachInterval } from '../watching/each-interval.js';
import { Terminal } from './terminal.js';
import { afterKey, FIRST_CHOICES, type Shown, screenLines } from './view.js';

/** the first rates need two looks: so that the screen is not empty for a whole interval */
const FIRST_INTERVAL_MS = 250;

/** Draws until a key quits. @param sort the column of the first order */
export async function runTop(watch: BusWatch, intervalMs: number, sort: string): Promise<void> {
  const quit = new AbortController();
  let choices = { ...FIRST_CHOICES, sort };
  let shown: Shown = { buses: [], at: new Date(), intervalMs };
  const draw = (): void => terminal.draw(screenLines(shown, choices, terminal));
  const terminal = new Terminal({
    resized: draw,
    key: (name) => {
      const next = afterKey(choices, name, Math.max(1, terminal.rows - 10));
      if (next === null) return quit.abort();
      choices = next;
      draw();
    },
  });
  const look = async (): Promise<void> => {
    const buses: BusRates[] = await watch.look();
    if (choices.isPaused || quit.signal.aborted) return;
    shown = { buses, at: new Date(), intervalMs };
    draw();
  };
  // the terminal is gone
  const end = (): void => quit.abort();
  process.stdout.on('error', end);
  terminal.enter();
  try {
    await look();
    for await (const _ of eachInterval(Math.min(FIRST_INTERVAL_MS, intervalMs), quit.signal)) {
      await look();
      break;
    }
    for await (const _ of eachInterval(intervalMs, quit.signal)) await look();
  } finally {
    terminal.leave();
    watch.close();
  }
}
