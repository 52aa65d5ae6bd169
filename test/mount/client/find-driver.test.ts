import { mkdir, mkdtemp, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { findDriver } from '../../../mount/client/find-driver.js';

async function tree(t: Test, files: Record<string, object>): Promise<string> {
  const root = await realpath(await mkdtemp(join(tmpdir(), 'packages-')));
  t.teardown(() => rm(root, { recursive: true }));
  await mkdir(join(root, 'a/b'), { recursive: true });
  for (const [name, content] of Object.entries(files)) {
    await mkdir(join(root, 'node_modules', name), { recursive: true });
    await writeFile(join(root, 'node_modules', name, 'package.json'), JSON.stringify(content));
  }
  return root;
}

t.test('built-in drivers are found by name, whatever is installed', async (t) => {
  const root = await tree(t, { ram: { main: 'other.js' } });
  for (const name of ['aio', 'ram', 'sync'])
    t.equal(
      findDriver(name, () => root),
      name,
    );
});

t.test("a file is found from the client's directory", async (t) => {
  t.equal(
    findDriver('./mine.js', () => '/home/me'),
    '/home/me/mine.js',
  );
  t.equal(
    findDriver('../mine', () => '/home/me'),
    '/home/mine',
  );
  t.equal(
    findDriver('mine.mjs', () => '/home/me'),
    '/home/me/mine.mjs',
  );
  t.equal(
    findDriver('drivers/mine.cjs', () => '/home/me'),
    '/home/me/drivers/mine.cjs',
  );
  t.equal(
    findDriver('/opt/mine', () => '/home/me'),
    '/opt/mine',
  );
});

t.test('a package is found in node_modules of a parent directory, with the entry that an import gets', async (t) => {
  const packages: Record<string, [object, string]> = {
    plain: [{}, 'index.js'],
    main: [{ main: './lib/main.js' }, 'lib/main.js'],
    text: [{ exports: './x.js', main: 'no.js' }, 'x.js'],
    map: [{ exports: { '.': './x.js', './other': './no.js' } }, 'x.js'],
    dual: [{ exports: { '.': { require: './no.cjs', types: './no.d.ts', import: './x.mjs' } } }, 'x.mjs'],
    nested: [{ exports: { import: { browser: './no.js', default: './x.mjs' }, default: './no.js' } }, 'x.mjs'],
    '@scope/name': [{ exports: { default: './x.js' } }, 'x.js'],
  };
  const root = await tree(t, Object.fromEntries(Object.entries(packages).map(([name, [file]]) => [name, file])));
  for (const [name, [, entry]] of Object.entries(packages)) {
    t.equal(
      findDriver(name, () => join(root, 'a/b')),
      join(root, 'node_modules', name, entry),
      name,
    );
  }
});

t.test('missing packages, and packages that cannot be imported', async (t) => {
  const root = await tree(t, { closed: { exports: { './only': './x.js' } } });
  for (const name of ['no-such-driver-at-all', 'up/../../x', 'UP', '@scope', '']) {
    t.throws(() => findDriver(name, () => root), { code: 'NOT_FOUND', hint: /aio, .*sync/ }, name);
  }
  t.throws(() => findDriver('closed', () => root), { code: 'UNSUPPORTED', message: /closed/ });
});
