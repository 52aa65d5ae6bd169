/**
 * A new driver is its folder and one line in drivers/names.ts: in a copy of the built tree both are added, and all that
 * knows drivers knows it.
 */
import { cp, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import t, { type Test } from 'tap';
import { type Bench, onDefaultTransport, openBench } from './fixtures.js';

t.setTimeout(120_000);

const ROOT = resolve(import.meta.dirname, '../../..');
const FOLDER = `import aio from '../aio/index.js';\nexport default { ...aio, name: 'twin' };\n`;
const LINE = `    twin: { load: () => import('./twin/index.js'), needsImage: true, tapdiskType: 77, summary: 'a second aio' },\n`;
/** the line that it goes behind, which is its place in the alphabet too */
const LAST_LINE = /^ +sync: .*\n/m;
const ROOMS = ['cli', 'drivers', 'mount', 'system'];

onDefaultTransport(t, ['cmp'], async (t, transport) => {
  const bench = await openBench(t, transport);
  const tree = await addDriver(bench);
  const run = async (program: string, ...args: string[]): Promise<string> => {
    const { status, stdout, stderr } = await bench.execute(process.execPath, [join(tree, program), ...args]);
    return status === 0 ? stdout.trimEnd() : `${status}: ${stderr.trimEnd()}`;
  };
  const fusetap = (...args: string[]): Promise<string> => run('dist/cli/main.js', ...args);
  const tapCtl = (...args: string[]): Promise<string> => run('dist/cli/tap-ctl/main.js', ...args);
  await t.test('the words of people', (t) => nameIt(t, fusetap));
  await t.test('the words of programs', (t) => nameItToPrograms(t, tree, bench));
  const image = await bench.image('disk.img', 1 << 20, 1 << 20);
  await t.test('a bus', async (t) => {
    for (const spec of [`twin:${image}`, `tap:twin:${image},xvda,r`, `vdev=xvda, target=twin:${image}`]) {
      const path = await fusetap('attach', spec);
      await bench.sh('cmp "$1" "$2"', path, image);
      t.match(await bench.list(), [{ vdev: 'xvda', driver: 'twin', image }], spec);
      t.match(await fusetap('config'), `twin:${image}`);
      await fusetap('detach', 'xvda');
    }
  });
  await t.test('tap-ctl', async (t) => {
    const device = await tapCtl('create', '-a', `twin:${image}`);
    await bench.sh('cmp "$1" "$2"', device, image);
    const line = await tapCtl('list', '-t', 'twin');
    t.match(line, `args=twin:${image}`);
    const pid = /^pid=(\d+)/.exec(line)?.[1] ?? '';
    t.match(await tapCtl('stats', '-p', pid, '-m', '0'), '"driver": { "type": 77, "name": "twin", "status": null }');
    t.equal(await tapCtl('destroy', '-p', pid, '-m', '0'), '');
  });
  t.same(await bench.traces(), [], 'nothing is left');
});

/** @returns the directory of the copy, with its programs built anew */
async function addDriver(bench: Bench): Promise<string> {
  const tree = await bench.makeDirectory('tree');
  const built = [...ROOMS, 'scripts/lib/bundle'].map((room) => `dist/${room}`);
  for (const part of [...ROOMS, 'test/conformance', ...built, 'package.json']) {
    await cp(join(ROOT, part), join(tree, part), { recursive: true });
  }
  await symlink(join(ROOT, 'node_modules'), join(tree, 'node_modules'));
  await addTo(join(tree, 'drivers'), 'ts');
  await addTo(join(tree, 'dist/drivers'), 'js');
  const { status, stderr } = await bench.execute(process.execPath, [join(tree, 'dist/scripts/lib/bundle/run.js')]);
  if (status !== 0) throw new Error(stderr);
  return tree;
}

async function addTo(drivers: string, extension: string): Promise<void> {
  await mkdir(join(drivers, 'twin'));
  await writeFile(join(drivers, `twin/index.${extension}`), FOLDER);
  const names = join(drivers, `names.${extension}`);
  const text = await readFile(names, 'utf8');
  if (!LAST_LINE.test(text)) throw new Error(`no line of sync in ${names}`);
  await writeFile(
    names,
    text.replace(LAST_LINE, (line) => line + LINE),
  );
}

async function nameIt(t: Test, fusetap: (...args: string[]) => Promise<string>): Promise<void> {
  const help = await fusetap('attach', '--help');
  t.match(help, /^ {2}twin {2,}a second aio$/m);
  t.match(help.replace(/\s+/g, ' '), /instead of SPEC: [a-z0-9, ]*, twin, [a-z0-9, ]*a file/);
  t.match(await fusetap('__complete', '--', 'attach', 'tw'), 'twin:\ta second aio');
  t.match(await fusetap('__complete', '--', 'attach', '--driver', 'tw'), 'twin\ta second aio');
  t.match(await fusetap('__complete', '--', 'attach', 'tap:twin:di'), 'files\ntap:twin:\ndi');
  t.match(await fusetap('attach', 'twni:disk.img'), /^3: .*no driver 'twni': drivers are .*, twin, /);
  t.match(await fusetap('attach', 'twin:'), /^2: .*no image/);
  t.match(await fusetap('attach', '--driver', 'no-such-driver', '--image', 'x'), /^3: .*: drivers are .*, twin, /);
}

async function nameItToPrograms(t: Test, tree: string, bench: Bench): Promise<void> {
  const program = `
    import { getDescription } from 'valibot';
    import { loadDriver } from '${tree}/dist/drivers/registry.js';
    import { driver } from '${tree}/dist/mount/control/schemas.js';
    console.log(JSON.stringify({ name: (await loadDriver('twin')).name, schema: getDescription(driver) }));`;
  await writeFile(join(tree, 'program.mjs'), program);
  const { stdout, stderr } = await bench.execute(process.execPath, [join(tree, 'program.mjs')]);
  t.equal(stderr, '');
  const { name, schema } = JSON.parse(stdout) as Record<string, string>;
  t.equal(name, 'twin', 'the registry loads it');
  t.match(schema, /, twin, .*or the absolute path/, 'the control interface describes it');
}
