/**
 * Compares docs/support.md with the facts: its matrix with the results of doctor for each kind of user, its table of FUSE
 * programs with the code.
 */
import { readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { FUSE_PROGRAMS } from '../../mount/file-system/tools/fuse-programs.js';
import { KERNEL_ABILITIES } from '../../mount/fuse/event-loop/kernel-transport.js';
import { openBench, whyNot } from '../e2e/fixtures.js';
import { NAMESPACE, ROOT, type Runner, USER } from '../e2e/runners.js';

const page = readFileSync(new URL('../../../docs/support.md', import.meta.url), 'utf8');

/** The rows of the table that begins with those heads. */
function table(...heads: string[]): string[][] {
  const rows = page.split('\n').map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
  const head = rows.findIndex((row) => heads.every((text, i) => row[i] === text));
  const end = rows.findIndex((row, i) => i > head && row.length === 0);
  return head < 0 ? [] : rows.slice(head + 2, end);
}

const RUNNERS: Record<string, Runner> = { root: ROOT, 'an ordinary user': USER, 'in a user namespace': NAMESPACE };
const matrix = table('', ...Object.keys(RUNNERS), 'doctor');

t.test('FUSE programs', async (t) => {
  t.same(
    table('file system', 'program', 'Debian package', 'writes'),
    FUSE_PROGRAMS.map(({ types, program, packageName, canWrite }) => [
      types.join(', '),
      program,
      packageName,
      canWrite ? 'yes' : 'no',
    ]),
  );
});

interface Line {
  name: string;
  ok: boolean;
  detail: string;
}

/** The results of doctor for one user. */
async function diagnose(t: Test, runner: Runner): Promise<Line[]> {
  const abilities = KERNEL_ABILITIES;
  const bench = await openBench(t, { name: 'kernel', options: [], abilities, runner, whyNot: () => false });
  const { stdout } = await bench.fusetap(['doctor', '--json']);
  return (JSON.parse(stdout) as { checks: Line[] }).checks;
}

for (const [column, [name, runner]] of Object.entries(RUNNERS).entries()) {
  t.test(`the matrix: ${name}`, { skip: whyNot() || runner.whyNot() }, async (t) => {
    t.ok(matrix.length > 5);
    const own = await diagnose(t, runner);
    const ofRoot = await diagnose(t, ROOT);
    for (const row of matrix) {
      const [what = '', said, line] = [row[0], row[column + 1], row[4]];
      const find = (lines: Line[]): Line | undefined => lines.find((candidate) => candidate.name === line);
      const found = find(own);
      if (found === undefined) t.fail(`doctor has no line ${line}`);
      // cells that depend on the machine are skipped, and so is everything that even root does not have
      else if (said === 'no') t.equal(found.ok, false, what);
      else if (said === 'yes') t.equal(found.ok, true, what, { skip: find(ofRoot)?.ok ? false : found.detail });
    }
    const passthrough = matrix.find((row) => row[4] === 'passthrough');
    t.equal(passthrough?.[column + 1], runner.passthrough ? 'yes' : 'no');
  });
}
