/** docs/coherence.md shows a session: its commands, run one after another, print what stands there. */
import { readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { Bench } from '../e2e/fixtures.js';
import { onDefaultTransport, openBench } from '../e2e/fixtures.js';

const PAGE = new URL('../../../docs/coherence.md', import.meta.url);
const SIZE = 8 << 20;

/** a line that no command prints */
const MARK = '--- next ---';

interface Example {
  readonly command: string;
  readonly prints: string;
}

/** The commands of the page's indented blocks, each with what it prints. */
function readExamples(): Example[] {
  const examples: { command: string; prints: string[] }[] = [];
  for (const line of readFileSync(PAGE, 'utf8').split('\n')) {
    if (line.startsWith('    $ ')) examples.push({ command: line.slice(6), prints: [] });
    else if (line.startsWith('    ')) examples.at(-1)?.prints.push(line.slice(4));
  }
  return examples.map(({ command, prints }) => ({ command, prints: prints.join('\n') }));
}

t.test('the examples of docs/coherence.md', (t) => {
  onDefaultTransport(t, ['losetup', 'qemu-io', 'bash'], async (t, transport) => {
    const bench = await openBench(t, transport);
    await bench.image('disk.img', SIZE);
    await runExamples(t, bench);
    t.same(await bench.traces(), [], 'the session leaves nothing');
  });
  t.end();
});

async function runExamples(t: Test, bench: Bench): Promise<void> {
  const examples = readExamples();
  t.ok(examples.length >= 30, `${examples.length} commands`);
  const here = (text: string): string => text.replaceAll('/run/fusetap', bench.runtimeDir);
  const lines = examples.flatMap(({ command }) => [`${here(command)}`, `echo '${MARK}'`]);
  const script = ['exec 2>&1', 'fusetap() { "$NODE" "$CLI" "$@"; }', ...lines].join('\n');
  const { stdout } = await bench.execute('bash', ['-c', script], {
    env: { NODE: process.execPath, CLI: bench.program },
  });
  const printed = stdout.split(`${MARK}\n`);
  for (const [index, { command, prints }] of examples.entries()) {
    t.equal(plain(bench, printed[index] ?? ''), plain(bench, prints), command);
  }
}

/** Without what differs from run to run. */
function plain(bench: Bench, text: string): string {
  return text
    .trimEnd()
    .replaceAll(bench.runtimeDir, '/run/fusetap')
    .replaceAll(bench.directory, '/img')
    .replace(/\/dev\/loop\d+/g, '/dev/loopN')
    .replace(/\bpid \d+/g, 'pid N');
}
