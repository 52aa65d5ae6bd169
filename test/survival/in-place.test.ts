/**
 * An update in place: the files of a package are replaced while buses run from it. The old package is the version whose
 * keepers and servers had other paths (fixtures/before-rooms.tar.gz is its build).
 */
import { cp, readFile, rm, symlink } from 'node:fs/promises';
import { resolve } from 'node:path';
import t, { type Test } from 'tap';
import { resolveBus } from '../../mount/client/index.js';
import { eventually } from '../e2e/command.js';
import { type Bench, openBench, whyNot } from '../e2e/fixtures.js';
import { Bus, KERNEL } from './bus.js';

t.setTimeout(240_000);

const DIST = resolve(import.meta.dirname, '../..');
const BEFORE = resolve(DIST, '../test/survival/fixtures/before-rooms.tar.gz');
const MIB = 1 << 20;

async function installBefore(bench: Bench): Promise<void> {
  await bench.sh('mkdir package; tar -xzf "$1" -C package', BEFORE);
  await symlink(resolve(DIST, '../node_modules'), bench.path('package/node_modules'));
}

async function replaceByNow(bench: Bench): Promise<void> {
  await rm(bench.path('package/dist'), { recursive: true });
  for (const name of ['chunks', 'cli', 'mount'])
    await cp(resolve(DIST, name), bench.path(`package/dist/${name}`), { recursive: true });
  await cp(resolve(DIST, '../package.json'), bench.path('package/package.json'));
}

interface Served {
  readonly bus: Bus;
  readonly file: string;
  readonly memory: string;
}

/** Starts a bus of the old package, with a file and a ram image, and writes to both. */
async function serveBefore(t: Test): Promise<Served> {
  const bench = await openBench(t, KERNEL);
  await installBefore(bench);
  const fusetap = [process.execPath, bench.path('package/dist/cli/main.js')];
  await bench.sh('"$@"', ...fusetap, 'start');
  const attach = async (spec: string): Promise<string> =>
    (await bench.sh('"$@"', ...fusetap, 'attach', '--passthrough', 'off', spec)).trim();
  const file = await attach(await bench.image('disk.img', MIB));
  const memory = await attach(`ram:${await bench.image('golden.img', MIB)}`);
  for (const path of [file, memory]) await bench.sh('printf PRECIOUS | dd of="$1" conv=notrunc status=none', path);
  return { bus: new Bus(bench, await resolveBus('0', bench.runtimeDir)), file, memory };
}

async function isWhole(t: Test, { bus, file, memory }: Served, when: string): Promise<void> {
  for (const path of [file, memory]) t.equal(await bus.bench.sh('head -c 8 "$1"', path), 'PRECIOUS', when);
  t.match(await bus.info(), { state: 'running', vbds: [{ broken: null }, { broken: null }] }, when);
}

async function endsClear(t: Test, { bus: { bench } }: Served): Promise<void> {
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);
}

t.test('a keeper of the old package starts servers of the new one', { skip: whyNot() }, async (t) => {
  const served = await serveBefore(t);
  const { bus } = served;
  await replaceByNow(bus.bench);
  await bus.killServer();
  await isWhole(t, served, 'after a death');
  t.match(await readFile(`/proc/${await bus.serverPid()}/cmdline`, 'utf8'), 'package/dist/mount/bus/server-main.js');
  await bus.bench.succeed(['upgrade']);
  await isWhole(t, served, 'after an upgrade');
  await bus.bench.sh('printf WRITTEN! | dd of="$1" conv=notrunc status=none', served.file);
  await endsClear(t, served);
  t.equal((await readFile(bus.bench.path('disk.img'))).subarray(0, 8).toString(), 'WRITTEN!');
});

t.test('a server of the new package outlives a keeper of the old one', { skip: whyNot() }, async (t) => {
  const served = await serveBefore(t);
  const { bus } = served;
  await replaceByNow(bus.bench);
  await bus.killServer();
  process.kill((await bus.info()).keeperPid as number, 'SIGKILL');
  await eventually('it is an orphan', 60_000, async () => {
    return (await bus.info().catch(() => undefined))?.state === 'orphaned' || undefined;
  });
  for (const path of [served.file, served.memory]) t.equal(await bus.bench.sh('head -c 8 "$1"', path), 'PRECIOUS');
  await endsClear(t, served);
});

t.test('a server of the old package outlives its keeper after the update', { skip: whyNot() }, async (t) => {
  const served = await serveBefore(t);
  const { bus } = served;
  // so soon that it may not have loaded the orphan code yet, which then comes from the new package
  await replaceByNow(bus.bench);
  process.kill((await bus.info()).keeperPid as number, 'SIGKILL');
  await eventually('it is an orphan', 60_000, async () => {
    return (await bus.info().catch(() => undefined))?.state === 'orphaned' || undefined;
  });
  for (const path of [served.file, served.memory]) t.equal(await bus.bench.sh('head -c 8 "$1"', path), 'PRECIOUS');
  await endsClear(t, served);
});
