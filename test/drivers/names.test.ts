/** drivers/names.ts: what it says of each driver is so, and saying it loads none of them. */
import { existsSync, readFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import t from 'tap';
import { DEFAULT_DRIVER, driverNames, driverSummaries, factsOf } from '../../drivers/names.js';
import { loadDriver } from '../../drivers/registry.js';
import { fusetap, tempDir } from '../cli/fake-bus.js';
import { importsOf } from '../lint/rooms.js';

const root = resolve(import.meta.dirname, '../../..');
const page = (name: string): string => readFileSync(join(root, name), 'utf8');

t.test('each driver is a folder with code, a page and a test', async (t) => {
  t.same(driverNames, [...driverNames].sort(), 'in alphabetical order');
  t.ok(driverNames.includes(DEFAULT_DRIVER));
  for (const name of driverNames) {
    for (const file of [`drivers/${name}/index.ts`, `drivers/${name}/README.md`, `test/drivers/${name}.test.ts`]) {
      t.ok(existsSync(join(root, file)), file);
    }
  }
  const folders = (await readdir(join(root, 'drivers'), { withFileTypes: true })).filter((entry) =>
    entry.isDirectory(),
  );
  const others = folders.map(({ name }) => name).filter((name) => !driverNames.includes(name));
  t.same(
    others.sort(),
    [
      'blocks',
      'copying',
      'creating',
      'examining',
      'filters',
      'formats',
      'graph',
      'lookup',
      'map',
      'partitions',
      'remote',
      'segments',
      'superblocks',
    ],
    'and there is no folder of a driver without its line',
  );
});

for (const name of driverNames) {
  t.test(`what is known of ${name} before it is loaded is so`, async (t) => {
    const driver = await loadDriver(name);
    t.equal(driver.name, name);
    // a memory that is shared can be joined by its name, without an image
    t.equal(factsOf(name)?.needsImage, driver.roles.file !== undefined && driver.scratch !== 'shared');
  });
}

t.test('a name that is no driver has no facts', async (t) => {
  for (const name of ['', 'qcow3', 'constructor', '__proto__', 'toString']) t.equal(factsOf(name), undefined, name);
});

t.test('the list loads no code', async (t) => {
  const text = page('drivers/names.ts');
  t.same(text.match(/^import (?!type )/gm), null, 'it imports types only');
  const loaded = importsOf('drivers/names.ts', text).filter(({ isType }) => !isType);
  t.same(
    loaded.map(({ to }) => to),
    driverNames.map((name) => `drivers/${name}/index.ts`),
    'and each driver when asked',
  );
});

t.test('the help of attach has a line for each', async (t) => {
  const { stdout } = await fusetap(tempDir(t), ['attach', '--help']);
  const [, lines = ''] = /^Drivers:\n((?: .*\n)+)/m.exec(stdout) ?? [];
  const shown = lines.trimEnd().split('\n');
  t.same(
    shown.map((line) => line.trim().split(/ {2,}/)),
    driverSummaries,
  );
  t.match(stdout.replace(/\s+/g, ' '), `instead of SPEC: ${driverNames.join(', ')}, a file`);
});

t.test('the pages name each of them', async (t) => {
  const choices = /### Choosing one\n([\s\S]*?)\n#/.exec(page('docs/drivers.md'))?.[1] ?? '';
  const rows = [...choices.matchAll(/^\| \[?`(\S+?)`/gm)].map(([, name]) => name);
  t.same(rows.sort(), driverNames, 'the table of docs/drivers.md');
  for (const name of ['README.md', 'docs/coherence.md']) {
    const named = [...page(name).matchAll(/^\| ([a-z\d]+) \|/gm)].map(([, word]) => word ?? '');
    t.same(
      driverNames.filter((driver) => !named.includes(driver)),
      [],
      `the tables of ${name}`,
    );
  }
  const option = /^- `--driver NAME`: (.*)$/m.exec(page('docs/cli.md'))?.[1] ?? '';
  t.match(option, driverNames.join(', '), 'docs/cli.md');
  const types = /types are (.*?) \|/.exec(page('docs/from-tapdisk.md'))?.[1] ?? '';
  t.same(types.match(/[a-z\d]+/g)?.sort(), driverNames, 'docs/from-tapdisk.md');
});
