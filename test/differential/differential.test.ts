/** Our driver and QEMU do the same operations on copies of an image. `scripts/differential` does more of them. */
import t from 'tap';
import { whyNoQemu } from '../drivers/qemu.js';
import { runTrial } from './trial.js';

t.setTimeout(180_000);
const TRIALS = 8;
const SEED = 1;

t.test('images that both wrote have the same disk and are clean', { skip: whyNoQemu() }, async (t) => {
  for (let i = 0; i < TRIALS; i++) {
    const { shape, operations } = await runTrial(SEED + i);
    t.pass(`${operations} operations, ${JSON.stringify(shape)}`);
  }
});
