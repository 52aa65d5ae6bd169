/** Checks docs/control.md: its examples run in order, and their answers match docs/openapi.json. */
import { readFileSync } from 'node:fs';
import t from 'tap';
import * as v from 'valibot';
import { EXIT_CODES } from '../../drivers/errors.js';
import { INTERFACE_VERSION } from '../../mount/control/interface.js';
import { ROUTES, type Row } from '../../mount/control/routes.js';
import { propertiesOf } from '../../scripts/lib/interface/openapi.js';
import { eventually } from '../e2e/command.js';
import { onDefaultTransport, openBench } from '../e2e/fixtures.js';

t.setTimeout(120_000);

const page = readFileSync(new URL('../../../docs/control.md', import.meta.url), 'utf8');

const ROWS: readonly Row[] = Object.values(ROUTES);

t.test('the tables of the page are those of the interface', async (t) => {
  t.match(page, `Interface **${INTERFACE_VERSION}**`);
  const shown = [...page.matchAll(/^\| ((?:GET|POST|DELETE) [^ ?]+)(\S*) \| (.*?) ?\| (.*?) \|$/gm)];
  const lineOf = (words = ''): string => words.replace('VDEV', '{vdev}');
  t.same(shown.map(([, words]) => lineOf(words)).sort(), ROWS.map(({ line }) => line).sort());
  for (const [, words, query = '', body = '', answer = ''] of shown) {
    const row = ROWS.find(({ line }) => line === lineOf(words));
    const keysOf = (schema?: v.GenericSchema): string[] => (schema ? Object.keys(propertiesOf(schema)).sort() : []);
    t.same((query.match(/(?<=[?&])\w+(?==)/g) ?? []).sort(), keysOf(row?.query), `query of ${words}`);
    t.same((body.match(/(?<=")\w+(?=")/g) ?? []).sort(), keysOf(row?.body), `body of ${words}`);
    t.same(/^(\d{3}), /.exec(answer)?.[1] ?? '200', String(row?.status ?? 200), `status of ${words}`);
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
  const lines = stdout.trimEnd().split('\n');
  const answers = lines.filter((line) => line.startsWith('{') || line.startsWith('[')).map((line) => JSON.parse(line));
  const metrics = lines.filter((line) => line.startsWith('#') || line.startsWith('fusetap_'));
  t.equal(answers.length + metrics.length, lines.length, 'an answer is JSON, but for the metrics');
  t.equal(metrics.at(-1), '# EOF');
  // they are not JSON, or do not end by themselves
  const others = ROWS.filter(({ line }) => line === 'GET /metrics' || line === 'GET /events');
  t.ok(others.every(({ line }) => script.includes(line.replace('GET ', ''))));
  const asked = [...script.matchAll(/^bus '?(\/[^\s?']*)\S*(.*)/gm)].filter(([, path]) => path !== '/metrics');
  t.equal(answers.length, asked.length, 'each was answered');
  const seen = new Set<Row>(others);
  for (const [i, [line, path = '', words = '']] of asked.entries()) {
    const method = words.includes('-X DELETE') ? 'DELETE' : /-X POST|-d /.test(words) ? 'POST' : 'GET';
    const row = ROWS.find((one) => one.line === `${method} ${path.replace(/^\/vbds\/[^/]+/, '/vbds/{vdev}')}`);
    if (row === undefined) throw new Error(`what is ${line}?`);
    seen.add(row);
    t.same(v.safeParse(row.answer, answers[i]).issues ?? [], [], line);
  }
  const rest = ROWS.filter((row) => !seen.has(row)).map(({ line }) => line);
  t.same(rest, ['POST /start'], 'the page shows every request but start');
  await eventually('the end of the bus', 10_000, async () => (await bench.traces()).length === 0);
});
