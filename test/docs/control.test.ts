/** docs/control.md keeps its word: its examples run, in its order, and answer what docs/openapi.json says. */
import { readFileSync } from 'node:fs';
import t from 'tap';
import { EXIT_CODES } from '../../drivers/errors.js';
import { INTERFACE_VERSION } from '../../mount/control/interface.js';
import { ANSWERS } from '../../scripts/lib/interface/answers.js';
import { schemaOfRequest } from '../../scripts/lib/interface/openapi.js';
import { OPERATIONS } from '../../scripts/lib/interface/operations.js';
import { eventually } from '../e2e/command.js';
import { onDefaultTransport, openBench } from '../e2e/fixtures.js';

t.setTimeout(120_000);

const page = readFileSync(new URL('../../../docs/control.md', import.meta.url), 'utf8');

t.test('the tables of the page are those of the interface', async (t) => {
  t.match(page, `Interface **${INTERFACE_VERSION}**`);
  const rows = [...page.matchAll(/^\| (GET|POST|DELETE) ([^ ?]+)\S* \| (.*?) ?\| (.*?) \|$/gm)];
  t.same(
    rows.map(([, method, path]) => `${method} ${path?.replace('VDEV', '{vdev}')}`).sort(),
    OPERATIONS.map(({ method, path }) => `${method.toUpperCase()} ${path}`).sort(),
  );
  for (const [, method, path = '', body = ''] of rows) {
    const operation = OPERATIONS.find(
      (one) => one.method === method?.toLowerCase() && one.path.replace('{vdev}', 'VDEV') === path,
    );
    const shape = operation?.request === undefined ? {} : (schemaOfRequest(operation.request).properties as object);
    t.same((body.match(/(?<=")\w+(?=")/g) ?? []).sort(), Object.keys(shape).sort(), `${method} ${path}`);
  }
  const codes = [...page.matchAll(/^\| \d{3} \| ([A-Z_]+) \|$/gm)].map(([, code]) => code);
  t.same(codes.sort(), Object.keys(EXIT_CODES).sort());
});

onDefaultTransport(t, ['curl'], async (t, transport) => {
  const bench = await openBench(t, transport);
  for (const name of ['disk.img', 'golden.img']) await bench.image(name, 1 << 20, 1 << 20);
  const scripts = [...page.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, script]) => script ?? '');
  // the answers one a line, and only they, on stdout
  const script = scripts
    .join('')
    .replaceAll('/srv/', `${bench.directory}/`)
    .replaceAll('/run/fusetap', bench.runtimeDir);
  const prelude = `fusetap() { '${process.execPath}' '${bench.program}' "$@" >/dev/null; }\n`;
  const { status, stdout, stderr } = await bench.execute('bash', ['-euc', prelude + script]);
  t.equal(status, 0, `${stderr}${stdout}`);
  const answers = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  const asked = [...script.matchAll(/^bus '?(\/[^\s?']*)\S*(.*)/gm)];
  t.equal(answers.length, asked.length, 'each was answered');
  const seen = new Set<string>();
  for (const [i, [line, path = '', words = '']] of asked.entries()) {
    const method = words.includes('-X DELETE') ? 'delete' : /-X POST|-d /.test(words) ? 'post' : 'get';
    const pattern = path.replace(/^\/vbds\/[^/]+/, '/vbds/{vdev}');
    const operation = OPERATIONS.find((one) => one.method === method && one.path === pattern);
    if (operation === undefined) throw new Error(`what is ${line}?`);
    seen.add(operation.id);
    const found = operation.isList ? answers[i] : [answers[i]];
    for (const one of found) t.same(ANSWERS[operation.answer].safeParse(one).error?.issues ?? [], [], line);
  }
  const rest = OPERATIONS.filter(({ id }) => !seen.has(id)).map(({ id }) => id);
  t.same(rest, ['start'], 'the page shows every request but start');
  await eventually('the end of the bus', 10_000, async () => (await bench.traces()).length === 0);
});
