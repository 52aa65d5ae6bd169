/**
 * The package as a user gets it: packed from a clean clone, installed globally into an empty prefix where nothing is
 * compiled, then used: the command line, the library, the types, the suite for authors of drivers.
 *
 *      clone ──npm pack──► fusetap-N.tgz ──npm install -g──► prefix/bin/fusetap, prefix/lib/node_modules/fusetap
 */
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import t, { type Test } from 'tap';
import { VERSION } from '../../mount/version.js';
import { readExample } from '../docs/example.js';
import { type Bench, onDefaultTransport, openBench, whyNot } from './fixtures.js';

t.setTimeout(1_800_000);

const ROOT = resolve(import.meta.dirname, '../../..');
/** the build takes minutes beside other work */
const SLOW = { timeoutMs: 900_000 };
/** what npm says where it cannot reach the registry */
const NO_REGISTRY =
  /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ENOTCACHED|code E\d{3}/;

t.test('the package, from a clean clone to a vbd', (t) => {
  onDefaultTransport(t, ['npm', 'tar'], async (t, transport) => {
    const bench = await openBench(t, transport);
    await t.test('is packed whole, and no more', (t) => pack(t, bench));
    const why = await install(bench);
    const skip = why ?? false;
    await t.test('the command line', { skip }, (t) => useCommand(t, bench));
    await t.test('the man pages', { skip: skip || whyNot('man') }, (t) => readManPages(t, bench));
    await t.test('the library', { skip }, (t) => useLibrary(t, bench));
    await t.test('the types', { skip }, (t) => useTypes(t, bench));
    await t.test('the suite, as docs/drivers.md shows it', { skip }, (t) => useSuite(t, bench));
  });
  t.end();
});

async function pack(t: Test, bench: Bench): Promise<void> {
  await bench.makeDirectory('clone');
  // what git has: no dist; of the tests only what ships, because compiling all of them takes time
  const rooms = ['system', 'drivers', 'mount', 'cli', 'docs'];
  const files = ['package.json', 'tsconfig.json', '.npmrc', 'LICENSE', 'CHANGELOG.md', 'CONTRIBUTING.md', 'README.md'];
  await bench.sh(
    'cd "$1"; for file in $2; do [ ! -e $file ] || cp -r $file "$3/"; done; mkdir "$3/test"; cp -r test/conformance "$3/test/"; ' +
      'mkdir -p "$3/scripts/lib"; cp -r scripts/lib/bundle scripts/lib/man "$3/scripts/lib/"',
    ...[ROOT, [...rooms, ...files].join(' '), bench.path('clone')],
  );
  await symlink(join(ROOT, 'node_modules'), bench.path('clone/node_modules'));
  const options = { cwd: bench.path('clone'), ...SLOW };
  const words = ['pack', '--ignore-scripts=false', '--loglevel=error', '--pack-destination', bench.directory];
  const { status, stdout, stderr } = await bench.execute('npm', words, options);
  t.equal(status, 0, status === 0 ? 'npm pack builds and packs' : `${stderr}${stdout}`);

  const packed = (await bench.sh('tar -tzf fusetap-*.tgz')).split('\n').map((path) => path.replace('package/', ''));
  for (const path of [
    ...['package.json', 'LICENSE', 'CHANGELOG.md', 'docs/drivers.md', 'dist/cli/main.cjs', 'dist/mount/index.js'],
    ...[
      'dist/cli/tap-ctl/main.cjs',
      'docs/openapi.json',
      'dist/mount/index.d.ts',
      'dist/test/conformance/index.js',
      'dist/test/conformance/index.d.ts',
    ],
  ]) {
    t.ok(packed.includes(path), path);
  }
  const odd = packed.filter((path) =>
    /(?<!\.d)\.ts$|buildinfo|^dist\/(?!chunks|cli|drivers|man\/|mount|system|test\/conformance)/.test(path),
  );
  t.same(odd, [], 'no sources, no tests');
  const hooks = await bench.try('tar -xzOf fusetap-*.tgz | grep -a FUSETAP_TEST_CRASH');
  t.equal(hooks.stdout, '', 'nothing in it dies where a test wants it to');
}

/** @returns why the rest has to be skipped; null where it was installed */
async function install(bench: Bench): Promise<string | null> {
  const words = ['install', '-g', '--prefix', bench.path('prefix'), '--ignore-scripts', '--prefer-offline'];
  const quiet = ['--loglevel=error', '--no-audit', '--no-fund', '--fetch-retries=0'];
  const file = await bench.sh('echo fusetap-*.tgz');
  const { status, stderr } = await bench.execute('npm', [...words, ...quiet, `./${file}`], SLOW);
  if (status === 0) return null;
  if (NO_REGISTRY.test(stderr)) return `npm cannot reach the registry: ${stderr.trim().split('\n')[0]}`;
  throw new Error(`npm install failed: ${stderr}`);
}

async function useCommand(t: Test, bench: Bench): Promise<void> {
  const fusetap = bench.path('prefix/bin/fusetap');
  t.equal(await bench.sh('"$1" --version', fusetap), VERSION);
  const image = await bench.image('disk.img', 1 << 20, 1 << 20);
  const vbd = await bench.sh('"$1" attach "$2"', fusetap, image);
  t.equal(vbd, join(bench.runtimeDir, 'bus/0/xvda'));
  await bench.sh('cmp "$1" "$2"', vbd, image);
  await bench.sh('"$1" detach xvda', fusetap);
  t.same(await bench.traces(), []);
}

async function readManPages(t: Test, bench: Bench): Promise<void> {
  const read = (...words: string[]): Promise<string> =>
    bench.sh('MANPAGER=cat man -M "$1" $2', bench.path('prefix/share/man'), words.join(' '));
  t.match(await read('fusetap'), /^FUSETAP\(1\)/);
  t.match(await read('fusetap', 'attach'), /^FUSETAP-ATTACH\(1\)/);
  t.match(await read('8', 'tap-ctl'), /^TAP-CTL\(8\)/);
  t.match(await read('fusetap.drivers'), /^FUSETAP\.DRIVERS\(7\)/);
}

/** A project beside which fusetap is installed. */
async function makeProject(bench: Bench, name: string, files: Record<string, string>): Promise<string> {
  const home = bench.path(name);
  await mkdir(join(home, 'node_modules'), { recursive: true });
  await symlink(bench.path('prefix/lib/node_modules/fusetap'), join(home, 'node_modules/fusetap'));
  const all = { 'package.json': '{"type":"module"}', ...files };
  for (const [file, text] of Object.entries(all)) await writeFile(join(home, file), text);
  return home;
}

const PROGRAM = `
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { attach, detach, FusetapError, list, openDisk, show, start, stop } from 'fusetap';

writeFileSync('disk.img', Buffer.alloc(10_000, 'a'));
const vbd = await attach('disk.img', { driver: 'ram', vdev: 'xvdc', offset: 100, sizelimit: 50 });
assert.deepEqual(await list(), [{ ...vbd }]);
assert.equal(readFileSync(vbd.path, 'utf8'), 'a'.repeat(50));
assert.equal((await list({ bus: '0' })).length, 1);
await assert.rejects(attach('disk.img', { vdev: 'xvdc' }), (error) => {
  assert.ok(error instanceof FusetapError);
  assert.equal(error.code, 'BUSY');
  return true;
});
assert.equal((await detach(vbd)).ended, true);
assert.deepEqual(await list(), []);

await start({ bus: 'mine' });
await attach('disk.img', { bus: 'mine', mode: 'r', filters: [{ name: 'delay', value: '1' }] });
assert.equal((await show({ bus: 'mine' })).vbds.length, 1);
await detach('disk.img', { bus: 'mine' });
await stop({ bus: 'mine' });

const disk = await openDisk('disk.img', { filters: [{ name: 'offset', value: '1K' }] });
await assert.rejects(openDisk('disk.img'), { code: 'BUSY' });
await disk.write(Buffer.from('hello'), 0);
await disk.close();
assert.equal(readFileSync('disk.img', 'utf8').slice(1023, 1030), 'ahelloa');
const copy = await openDisk('disk.img', { driver: 'ram' });
await copy.zero(0, copy.size);
await copy.close();
await copy.close();
assert.equal(readFileSync('disk.img', 'utf8').slice(1023, 1030), 'ahelloa');
await assert.rejects(openDisk('nowhere.img'), { code: 'NOT_FOUND' });
await assert.rejects(openDisk('disk.img', { offset: 10_000 }), { code: 'USAGE' });
await assert.rejects(openDisk(null), { code: 'USAGE' });
await (await openDisk('disk.img')).close();
console.log('all is well');
`;

async function useLibrary(t: Test, bench: Bench): Promise<void> {
  const cwd = await makeProject(bench, 'program', { 'program.js': PROGRAM });
  const { stdout, stderr } = await bench.execute(process.execPath, ['program.js'], { cwd });
  t.equal(stdout, 'all is well\n', stderr);
  t.same(await bench.traces(), []);
}

const TYPED = `
import { attach, type Disk, type Driver, EXIT_CODES, FusetapError, openDisk, type VbdInfo } from 'fusetap';
import { type DiskFactory, diskSuite, driverFactory } from 'fusetap/conformance';

export const driver = {
  name: 'mine',
  image: 'none',
  async open({ options }) {
    const bytes = Buffer.alloc(Number(options.size));
    return { size: bytes.length, async read(buffer, offset) { bytes.copy(buffer, 0, offset); }, async close() {} };
  },
} satisfies Driver;
export const vbd: Promise<VbdInfo> = attach('x', { driver: 'ram', mode: 'r' });
export const disk: Promise<Disk> = openDisk('x');
export const exit: 4 = EXIT_CODES.BUSY;
export const code: string = new FusetapError('BUSY', 'x').code;
export const factory: DiskFactory = driverFactory(driver);
// @ts-expect-error a mode that there is not
attach('x', { mode: 'rw' });
// @ts-expect-error parts of the options are missing
diskSuite({ name: 'mine' });
`;

async function useTypes(t: Test, bench: Bench): Promise<void> {
  const cwd = await makeProject(bench, 'typed', { 'typed.ts': TYPED });
  const tsc = join(ROOT, 'node_modules/typescript/bin/tsc');
  const types = ['--types', 'node', '--typeRoots', join(ROOT, 'node_modules/@types')];
  const strict = ['--noEmit', '--strict', '--exactOptionalPropertyTypes', '--skipLibCheck', '--target', 'es2022'];
  const words = [tsc, ...strict, '--module', 'nodenext', ...types, 'typed.ts'];
  const { status, stdout } = await bench.execute(process.execPath, words, { cwd, ...SLOW });
  t.equal(status, 0, stdout);
}

async function useSuite(t: Test, bench: Bench): Promise<void> {
  const names = ['concat.js', 'concat.test.js'];
  const files = Object.fromEntries(names.map((name) => [name, readExample('drivers.md', name)]));
  const cwd = await makeProject(bench, 'driver', files);
  const run = (): ReturnType<Bench['execute']> =>
    // a test runner below a test runner would take its orders
    bench.execute(process.execPath, ['--test'], {
      cwd,
      ...SLOW,
      env: { NODE_TEST_CONTEXT: undefined, NODE_OPTIONS: undefined },
    });
  const without = await run();
  t.equal(without.status, 1, 'without fast-check, which is an optional peer');
  t.match(without.stdout, /fusetap\/conformance needs the package fast-check: npm install --save-dev fast-check/);
  const peer = 'prefix/lib/node_modules/fast-check';
  await symlink(join(ROOT, 'node_modules/fast-check'), bench.path(peer));

  const good = await run();
  t.equal(good.status, 0, good.status === 0 ? 'it passes' : good.stdout);
  t.match(good.stdout, /^# pass [1-9]\d$/m);
  t.match(good.stdout, /^# fail 0$/m);

  const broken = (files['concat.js'] ?? '').replace('from - offset, length', 'from - offset, length - 1');
  await writeFile(join(cwd, 'concat.js'), broken);
  t.equal((await run()).status, 1, 'a driver that does not keep the contract fails');
}
