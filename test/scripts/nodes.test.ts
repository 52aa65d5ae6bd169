/** The tested versions of Node: how they are fetched, and that package.json and docs/support.md agree with them. */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import t, { type Test } from 'tap';
import { dir as temporaryDirectory } from 'tmp-promise';
import {
  fetchNode,
  majorOf,
  otherNodes,
  programOf,
  TESTED_NODES,
  type TestedNode,
} from '../../scripts/lib/test/nodes.js';
import { execute, output } from '../e2e/command.js';

const ROOT = resolve(import.meta.dirname, '../../..');

/** A cache and an npm of our own, whose `pack` makes a package with a `node` that prints its version. */
async function fakeRegistry(t: Test): Promise<{ cache: string; integrity: string }> {
  const { path: root, cleanup } = await temporaryDirectory({ unsafeCleanup: true });
  const before = { PATH: process.env.PATH, XDG_CACHE_HOME: process.env.XDG_CACHE_HOME };
  t.teardown(async () => {
    for (const [name, value] of Object.entries(before)) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
    await cleanup();
  });
  await mkdir(join(root, 'package/bin'), { recursive: true });
  await mkdir(join(root, 'bin'));
  await writeFile(join(root, 'package/bin/node'), '#!/bin/sh\necho v99.0.0\n', { mode: 0o755 });
  await output('tar', ['-czf', 'node.tgz', 'package'], { cwd: root });
  await writeFile(join(root, 'bin/npm'), `#!/bin/sh\ncp ${root}/node.tgz "$4/" && echo node.tgz\n`, { mode: 0o755 });
  process.env.PATH = `${join(root, 'bin')}:${before.PATH}`;
  process.env.XDG_CACHE_HOME = join(root, 'cache');
  const packed = await readFile(join(root, 'node.tgz'));
  const integrity = `sha512-${createHash('sha512').update(packed).digest('base64')}`;
  return { cache: join(root, 'cache/fusetap/node'), integrity };
}

const nodeWith = (integrity: string): TestedNode => ({ version: '99.0.0', integrity: { [process.arch]: integrity } });

t.test('a Node is fetched once', async (t) => {
  const { integrity } = await fakeRegistry(t);
  const node = nodeWith(integrity);
  await fetchNode(node);
  t.equal((await execute(programOf(node), [])).stdout, 'v99.0.0\n');
  process.env.PATH = '';
  await fetchNode(node);
});

t.test('a package that is not the tested one is refused, and nothing is left', async (t) => {
  const { cache } = await fakeRegistry(t);
  await t.rejects(fetchNode(nodeWith('sha512-AAAA')), /has the integrity sha512-.+, not sha512-AAAA/);
  t.same(await readdir(cache), []);
});

t.test('the Node that runs the tests stands for its major', async (t) => {
  t.equal(otherNodes().length, TESTED_NODES.length - 1);
  t.notOk(otherNodes().some(({ version }) => majorOf(version) === majorOf(process.versions.node)));
});

t.test('docs/support.md names them', async (t) => {
  const page = await readFile(join(ROOT, 'docs/support.md'), 'utf8');
  const named = page.match(/\b2\d\.\d+\.\d+\b/g) ?? [];
  t.same(
    named,
    TESTED_NODES.map(({ version }) => version),
  );
});
