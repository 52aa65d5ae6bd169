/** Our drivers and QEMU do the same to the same images; `scripts/prove-format differ` does so with other seeds, for longer. */
import t from 'tap';
import { whyNoQemu } from '../drivers/qemu.js';
import { differ } from './differ/differ.js';
import { DIFFER_DRIVERS } from './differ/images.js';

t.setTimeout(180_000);

const TRIALS = { aio: 2, qcow2: 20, vdi: 2, vhd: 2, vmdk: 2 };

for (const driver of DIFFER_DRIVERS) {
  t.test(driver, { skip: whyNoQemu() }, async () => {
    for (let seed = 1; seed <= TRIALS[driver]; seed++) await differ(driver, seed);
  });
}

t.test('a difference is found', { skip: whyNoQemu() }, async (t) => {
  const loses = (bytes: Buffer): void => void bytes.fill(0, 0, 1);
  await t.rejects(differ('qcow2', 2, { spoil: loses }), /qcow2, seed 2: .*byte/s);
});
