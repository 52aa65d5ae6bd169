/** The programs of docs/library.md run and print what the page says; its table names what there is. */
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import t from 'tap';
import * as library from '../../mount/index.js';
import { onDefaultTransport, openBench } from '../e2e/fixtures.js';
import { readExample } from './example.js';

const PRINTED: Record<string, string> = {
  'attach.js': '51728 1048576 w\n1048576\nBUSY\ntrue\n',
  'bus.js': 'true 1 4096\n',
  'disk.js': `${'a'.repeat(50)}\n`,
  'snapshot.js': "[ { offset: 0, length: 4096, kind: 'data' } ]\n2097152\n",
};

t.test('the table names what there is', async (t) => {
  const page = readFileSync(new URL('../../../docs/library.md', import.meta.url), 'utf8');
  const table = page.slice(page.indexOf('## What there is'));
  const named = [...table.matchAll(/`([A-Za-z_]+)(?:\(.*?\))?`/g)].map(([, name]) => name ?? '');
  t.same(
    [...new Set(named)].filter((name) => name !== 'vbd' && name !== 'attach').sort(),
    Object.keys(library)
      .filter((name) => name !== 'attach')
      .sort(),
  );
});

onDefaultTransport(t, [], async (t, transport) => {
  const bench = await openBench(t, transport);
  const url = new URL('../../mount/index.js', import.meta.url).href;
  for (const [name, printed] of Object.entries(PRINTED)) {
    const file = bench.path(name.replace('.js', '.mjs'));
    await writeFile(file, readExample('library.md', name).replace("'fusetap'", `'${url}'`));
    for (const time of ['once', 'and again']) {
      const { status, stdout, stderr } = await bench.execute(process.execPath, [file]);
      t.equal(status, 0, stderr);
      t.equal(stdout, printed, `${name} ${time}`);
    }
  }
  t.same(await bench.traces(), []);
});
