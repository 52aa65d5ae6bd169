/** scripts/prove-format: a few trials of each kind, on the toy format, and wrong arguments. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import t from 'tap';
import { whyNoQemu } from '../drivers/qemu.js';

const RUN = fileURLToPath(new URL('../../scripts/lib/prove-format/run.js', import.meta.url));
const run = promisify(execFile);

t.setTimeout(120_000);

for (const what of ['kills', 'cuts', 'errors']) {
  t.test(what, async (t) => {
    const { stdout } = await run(process.execPath, [RUN, what, '--driver', 'toy', '--trials', '2', '--seed', '7']);
    t.match(stdout, new RegExp(`^prove-format: ${what} of toy, --seed 7\n2 trials, 0 faults, \\d+ s\n$`));
  });
}

t.test('differ', { skip: whyNoQemu() }, async (t) => {
  const { stdout } = await run(process.execPath, [RUN, 'differ', '--driver', 'aio', '--trials', '1', '--seed', '1']);
  t.match(stdout, /\n1 trials, 0 faults/);
});

t.test('a fault, which its number repeats', async (t) => {
  const outcome = await run(process.execPath, [RUN, 'fuzz', '--driver', 'toy', '--trials', '30', '--seed', '1']).catch(
    (error: unknown) => error,
  );
  t.match(outcome, { code: 1, stdout: /FAULT: toy.*, mutant \d+ / });
  const [, seed = ''] = /, mutant (\d+) /.exec((outcome as { stdout: string }).stdout) ?? [];
  const again = await run(process.execPath, [RUN, 'fuzz', '--driver', 'toy', '--trials', '1', '--seed', seed]).catch(
    (error: unknown) => error,
  );
  t.match(again, { code: 1, stdout: new RegExp(`mutant ${seed} `) });
});

t.test('wrong arguments', async (t) => {
  for (const [words, says] of [
    [[], /^prove-format: say what to look for: see scripts\/prove-format --help\n$/],
    [['luck'], /^prove-format: it cannot look for 'luck'/],
    [['differ', '--driver', 'toy'], /^prove-format: differ has no images for the driver 'toy'/],
    [['cuts', '--trials', 'many'], /^prove-format: --trials takes a whole number from 1 on, not many/],
  ] as const) {
    const outcome = await run(process.execPath, [RUN, ...words]).catch((error: unknown) => error);
    t.match(outcome, { code: 2, stdout: '', stderr: says }, words.join(' '));
  }
});
