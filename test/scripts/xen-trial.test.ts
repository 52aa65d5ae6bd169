/**
 * scripts/xen-trial: its command line, what it reads from the dom0 and what it prints. The dom0 itself is not booted here:
 * that takes most of an hour.
 */
import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { mirrorsOf } from '../../scripts/lib/xen-trial/dom0-image.js';
import { missing } from '../../scripts/lib/xen-trial/needs.js';
import { parseReport, type Report } from '../../scripts/lib/xen-trial/protocol.js';
import { SCENARIOS, type Scenario } from '../../scripts/lib/xen-trial/scenarios.js';
import { markdownTable, printTable, type Run, replaceTable } from '../../scripts/lib/xen-trial/table.js';
import { type Outcome, Runner } from '../../scripts/lib/xen-trial/trial.js';
import { parseSettings } from '../../scripts/lib/xen-trial/words.js';

const ROOT = resolve(import.meta.dirname, '../../..');
const RUN = join(ROOT, 'dist/scripts/lib/xen-trial/run.js');
const SOURCE = join(ROOT, 'scripts/lib/xen-trial');
const run = promisify(execFile);

const [MAIN, KILLS, SHUTDOWN] = ['main', 'kills', 'shutdown'].map((name) =>
  SCENARIOS.find((scenario) => scenario.name === name),
) as [Scenario, Scenario, Scenario];

t.test('--help and --list', async (t) => {
  const help = (await run(process.execPath, [RUN, '--help'])).stdout;
  for (const option of ['scenarios LIST', 'list', 'write', 'timeout MINUTES', 'rebuild', 'keep', 'help']) {
    t.match(help, new RegExp(`^ {2}--${option} `, 'm'));
  }
  const list = (await run(process.execPath, [RUN, '--list'])).stdout;
  t.same(
    list
      .trim()
      .split('\n')
      .map((line) => line.split(' ')[0]),
    SCENARIOS.map(({ name }) => name),
  );
});

t.test('each scenario of the list is in the dom0, and no other', async (t) => {
  const directory = join(SOURCE, 'dom0/scenarios');
  const files = (await readdir(directory)).map((name) => readFile(join(directory, name), 'utf8'));
  const texts = (await Promise.all(files)).join('\n');
  const defined = [...texts.matchAll(/^scenario_(\w+)\(\)/gm)].map(([, name = '']) => name.replaceAll('_', '-'));
  const wanted = SCENARIOS.flatMap(({ name, afterBoot }) => [name, ...(afterBoot === undefined ? [] : [afterBoot])]);
  t.same(defined.sort(), wanted.sort());
});

t.test('the shell files are shell', async () => {
  const find = ['dom0/agent', 'dom0/prepare', 'dom0/scenario', 'dom0/words.sh', 'image/build', 'image/customize'];
  const scenarios = (await readdir(join(SOURCE, 'dom0/scenarios'))).map((name) => `dom0/scenarios/${name}`);
  for (const file of [...find, ...scenarios]) await run('bash', ['-n', join(SOURCE, file)]);
  await run('sh', ['-n', join(SOURCE, 'dom0/guest-init')]);
});

t.test('which scenarios, and for how long', async (t) => {
  t.match(parseSettings([]), { scenarios: SCENARIOS, timeoutMs: 7_200_000, keep: false, rebuild: false, write: false });
  t.match(
    parseSettings(['--scenarios', 'kills,main', '--timeout', '0.5', '--keep']),
    { scenarios: [MAIN, KILLS], timeoutMs: 30_000, keep: true },
    'in the order of the list',
  );
});

t.test('wrong arguments', async (t) => {
  for (const [words, says] of [
    [['--scenarios', 'main,luck'], /^xen-trial: --scenarios: no scenario 'luck': see scripts\/xen-trial --list\n$/],
    [['--timeout', '0'], /^xen-trial: --timeout takes a number of minutes above 0, at most a day, not 0/],
    [['--write', '--scenarios', 'main'], /^xen-trial: --write writes the table of all scenarios: omit --scenarios/],
    [['--now'], /^xen-trial: Unknown option '--now'/],
  ] as const) {
    const outcome = await run(process.execPath, [RUN, ...words]).catch((error: unknown) => error);
    t.match(outcome, { code: 2, stdout: '', stderr: says }, words.join(' '));
  }
});

t.test('what is missing is said in one line each, with the way to get it', async (t) => {
  const empty = t.testdir();
  const lines = await missing({ builds: true, cache: empty, path: empty });
  t.ok(lines.includes('mmdebstrap is not installed: apt-get install --no-install-recommends mmdebstrap'));
  t.ok(lines.includes('qemu-system-x86_64 is not installed: apt-get install --no-install-recommends qemu-system-x86'));
  const built = await missing({ builds: false, cache: empty, path: empty });
  t.notOk(
    built.some((line) => line.startsWith('mmdebstrap')),
    'it is needed only for the build',
  );
});

t.test('the mirrors are those of apt, else those of Debian', async (t) => {
  const targets = 'Debian|Debian|http://near/debian\nNode|x|http://node\nDebian|Debian-Security|http://near/security\n';
  t.same(mirrorsOf(targets), { main: 'http://near/debian', security: 'http://near/security' });
  t.match(mirrorsOf('Ubuntu|Ubuntu|http://near/ubuntu'), { main: 'http://deb.debian.org/debian' });
});

t.test('the lines of the agent', async (t) => {
  t.same(parseReport('@@ ready\r'), { kind: 'ready' });
  t.same(parseReport('@@ about Xen 4.17'), { kind: 'about', text: 'Xen 4.17' });
  t.same(parseReport('@@ end old-specs 124 1500.2'), { kind: 'end', name: 'old-specs', status: 124, seconds: 1500.2 });
  for (const text of ['', '@@', '@@ end', '@@ end main x 1.0', 'a @@ ready', '@@ end main 0']) {
    t.same(parseReport(text), { kind: 'output', text });
  }
});

const RAN: Run = {
  rows: [
    { scenario: { name: 'main', about: 'a | b' }, result: 'ok', seconds: 2.25 },
    { scenario: { name: 'old-specs', about: 'c' }, result: 'no answer', seconds: null },
  ],
  about: 'fusetap 1, Xen 4.17',
  minutes: 61.4,
};

t.test('the table, on a terminal and in the docs', async (t) => {
  t.equal(
    printTable(RAN),
    [
      'scenario   result     seconds',
      'main       ok             2.3',
      'old-specs  no answer         ',
      '',
      '1 of 2 ok, in 61 minutes',
      'fusetap 1, Xen 4.17',
    ].join('\n'),
  );
  const table = markdownTable(RAN);
  t.match(table, /^fusetap 1, Xen 4\.17, in QEMU without KVM:\n\n\| scenario /);
  t.ok(table.includes('| main | a \\| b | ok | 2.3 |'));
  const page = await readFile(join(ROOT, 'docs/from-tapdisk.md'), 'utf8');
  const written = replaceTable(page, table);
  t.equal(replaceTable(written, table), written, 'writing it twice changes nothing');
  t.ok(written.includes(`\n\n${table}\n\n`));
  t.ok(written.length > table.length + 1000, 'the rest of the page stays');
  t.throws(() => replaceTable('no marks', table), { code: 'USAGE' });
});

t.test('the table in the docs has scenarios as they are now', async (t) => {
  const page = await readFile(join(ROOT, 'docs/from-tapdisk.md'), 'utf8');
  const table = page.slice(page.indexOf('<!-- scripts/xen-trial'), page.indexOf('<!-- to here -->'));
  const rows = table.split('\n').filter((line) => line.startsWith('| ') && !/^\| (---|scenario) /.test(line));
  t.ok(rows.length > 0);
  for (const row of rows) {
    const known = SCENARIOS.some(({ name, about }) => row.startsWith(`| ${name} | ${about.replaceAll('|', '\\|')} | `));
    t.ok(known, row);
  }
});

/** Runs scenarios against what an agent says; each list is one boot. */
async function play(
  scenarios: readonly Scenario[],
  boots: readonly (readonly string[])[],
): Promise<Outcome & { orders: string[] }> {
  const orders: string[] = [];
  const left = boots.map((lines) => lines.map(parseReport));
  const boot = () => {
    const reports: Report[] = left.shift() ?? [];
    return {
      order: (name: string) => void orders.push(name),
      next: async () => reports.shift() ?? null,
      kill: async () => void orders.push('kill'),
    };
  };
  const runner = new Runner({ scenarios, boot, deadline: performance.now() + 60_000, say: () => {} });
  return { ...(await runner.run()), orders };
}

const results = ({ rows }: Outcome): string[] => rows.map(({ result }) => result);

t.test('neither a scenario that fails nor a machine that does not answer ends the run', async (t) => {
  const scenarios = [MAIN, KILLS, SHUTDOWN];
  const failed = await play(scenarios, [
    ['@@ about Xen', '@@ ready', 'x', '@@ end main 1 2.0', '@@ end kills 0 3.5', '@@ end shutdown 1 1.0'],
  ]);
  t.same(results(failed), ['failed', 'ok', 'failed']);
  t.same(failed.orders, ['main', 'kills', 'shutdown', 'kill']);
  t.equal(failed.about, 'Xen');
  t.same(results(await play(scenarios, [['@@ ready', 'x']])), ['no answer', 'not run', 'not run']);
  const again = await play(scenarios, [
    ['@@ ready', 'x'],
    ['@@ ready', '', '@@ end kills 0 3.5', '@@ end shutdown 1 1.0'],
  ]);
  t.same(results(again), ['no answer', 'ok', 'failed'], 'it is booted again for those that are left');
  t.same(again.orders, ['main', 'kill', 'kills', 'shutdown', 'kill']);
  t.same(results(await play(scenarios, [['x']])), ['not run', 'not run', 'not run'], 'it does not boot');
});

t.test('a scenario with a second half shuts the machine down and boots it again', async (t) => {
  const first = ['@@ ready', '@@ end shutdown 0 10.0', 'bye'];
  const whole = await play([SHUTDOWN], [first, ['@@ ready', '@@ end after-shutdown 0 5.5']]);
  t.same(whole.rows, [{ scenario: SHUTDOWN, result: 'ok', seconds: 15.5 }]);
  t.same(whole.orders, ['shutdown', 'poweroff', 'kill', 'after-shutdown', 'kill']);
  t.same(results(await play([SHUTDOWN], [first, ['@@ ready', '@@ end after-shutdown 1 5.5']])), ['failed']);
  t.same(results(await play([SHUTDOWN, MAIN], [first, ['no']])), ['no answer', 'not run']);
});
