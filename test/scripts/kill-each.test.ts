/** scripts/kill-each: some kills at system calls of real servers, and wrong arguments. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import t from 'tap';
import { whyNoQemu } from '../drivers/qemu.js';
import { whyNot } from '../e2e/fixtures.js';

const RUN = fileURLToPath(new URL('../../scripts/lib/kill-each/run.js', import.meta.url));
const run = promisify(execFile);

t.setTimeout(240_000);

for (const [driver, words, says] of [
  ['aio', ['over a write', '--calls', 'pwrite64'], /^aio: a write over a write: pwrite64 [1-9]/],
  ['qcow2', ['part of a unit', '--only', 'empty', '--calls', 'pwrite64,fsync', '--most', '4'], /pwrite64 4, fsync 4\n/],
] as const) {
  t.test(driver, { skip: whyNot('strace') || whyNoQemu() }, async (t) => {
    const { stdout, stderr } = await run(process.execPath, [RUN, driver, ...words]);
    t.match(stdout, says);
    t.match(stdout, / 0 faults\n$/);
    t.equal(stderr, '');
  });
}

t.test('wrong arguments', async (t) => {
  for (const [words, says] of [
    [[], /^kill-each: name a driver: see scripts\/kill-each --help\n$/],
    [['vhdx'], /^kill-each: there are no images for the driver 'vhdx'/],
    [['aio', 'no such'], /^kill-each: no situation is called 'no such'/],
    [['aio', '--most', '0'], /^kill-each: --most takes a whole number from 1 on, not 0/],
  ] as const) {
    const outcome = await run(process.execPath, [RUN, ...words]).catch((error: unknown) => error);
    t.match(outcome, { code: 2, stdout: '', stderr: says }, words.join(' '));
  }
});
