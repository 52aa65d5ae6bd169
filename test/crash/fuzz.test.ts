/** Damaged images are refused or served, and nothing else; `scripts/prove-format fuzz` tries more of them. */
import t from 'tap';
import { whyNoQemu } from '../drivers/qemu.js';
import { fuzz } from './fuzz/fuzz.js';

t.setTimeout(180_000);

const MUTANTS = { qcow2: 400, vdi: 100, vhd: 100, vhdx: 100, vmdk: 100, tar: 100 } as const;

for (const [format, mutants] of Object.entries(MUTANTS) as [keyof typeof MUTANTS, number][]) {
  t.test(format, { skip: whyNoQemu() }, async (t) => {
    const report = await fuzz({ format, firstSeed: 1, mutants });
    t.strictSame(report.faults, []);
    t.equal(report.mutants, mutants);
    t.ok(report.refused > mutants / 10, `${report.refused} of ${mutants} were refused`);
  });
}

t.test('a driver that trusts its images is found', async (t) => {
  const { faults } = await fuzz({ format: 'toy', firstSeed: 1, mutants: 300 });
  t.ok(faults.length >= 5, faults[0] ?? 'nothing was found');
});
