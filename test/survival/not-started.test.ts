/**
 * For a while no server can be started: because of missing descriptors, package, node, or processes. Clients wait, and
 * then the bus goes on; failed starts are no evidence against it.
 */
import { readdirSync } from 'node:fs';
import { cp, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { resolveBus } from '../../mount/client/index.js';
import { Client } from '../e2e/client.js';
import { eventually, type Outcome } from '../e2e/command.js';
import { type Bench, openBench, whyNot } from '../e2e/fixtures.js';
import { USER } from '../e2e/runners.js';
import { Bus, KERNEL, startBus } from './bus.js';

t.setTimeout(240_000);

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

interface Served {
  readonly bus: Bus;
  readonly client: Client;
}

async function serve(t: Test, bus: Bus): Promise<Served> {
  const { bench } = bus;
  const ram = await bus.attach({ driver: 'ram', image: await bench.image('golden.img', 1 << 20), passthrough: 'off' });
  await bench.sh('printf PRECIOUS | dd of="$1" conv=notrunc status=none', ram.path);
  return { bus, client: await Client.open(t, bench, 'read', ram.path) };
}

/** The highest limit with which a process can open at most two more files, which is less than a spawn needs. */
function fullLimit(pid: number): number {
  const open = new Set(readdirSync(`/proc/${pid}/fd`));
  let limit = 0;
  for (let free = 0; free <= 2; limit++) if (!open.has(String(limit))) free++;
  return limit - 1;
}

/** Kills the server, checks that no server starts and that a client waits, and then that the client is served. */
async function outlasts(t: Test, { bus, client }: Served, mend: () => Promise<unknown>, reason: RegExp): Promise<void> {
  const { restarts } = await bus.info();
  process.kill(await bus.serverPid(), 'SIGKILL');
  const answer = client.call('read', 0, 8);
  await eventually('one was tried', 60_000, async () => reason.test(await bus.log()));
  // many more tries than would end a bus if they counted
  await new Promise((resolve) => setTimeout(resolve, 700));
  t.equal((await bus.info()).state, 'restarting');
  await mend();
  t.equal(await answer, '8');
  await bus.settled(restarts + 1);
  const told = (await bus.log()).match(/ server-not-started /g) ?? [];
  t.ok(told.length <= 4, `${told.length} lines in the log`);
}

async function ends(t: Test, { bus, client }: Served): Promise<void> {
  await client.release();
  await bus.bench.succeed(['stop']);
  t.same(await bus.bench.traces(), []);
}

void t.test('no descriptors', { skip: whyNot('prlimit') }, async (t) => {
  const served = await serve(t, await startBus(t));
  const { bus } = served;
  const { keeperPid, serverPid } = await bus.info();
  // the keeper has only its spare descriptors left; the processes that it starts may open more
  await bus.bench.sh('prlimit --pid "$1" --nofile="$2":', `${keeperPid}`, `${fullLimit(keeperPid as number)}`);
  process.kill(serverPid as number, 'SIGKILL');
  t.equal(await served.client.call('read', 0, 8), '8');
  await bus.bench.sh('prlimit --pid "$1" --nofile=1024:', `${keeperPid}`);
  await bus.settled(1);
  t.notMatch(await bus.log(), /server-not-started/);
  await ends(t, served);
});

void t.test('no processes', { skip: whyNot('prlimit') || USER.whyNot() }, async (t) => {
  const served = await serve(t, await startBus(t, {}, '0', { ...KERNEL, runner: USER }));
  const { keeperPid } = await served.bus.info();
  const limit = (count: string) => served.bus.bench.sh('prlimit --pid "$1" --nproc="$2":', `${keeperPid}`, count);
  await limit('1');
  await outlasts(t, served, () => limit('4000'), /server-not-started.*EAGAIN/);
  await ends(t, served);
});

/** A copy of the package: Node would resolve links to the complete one. @returns its directory */
async function copyPackage(bench: Bench): Promise<string> {
  const copy = bench.path('package');
  await bench.sh('mkdir "$2"; cp -r "$1/dist" "$1/package.json" "$2"; ln -s "$1/node_modules" "$2"', ROOT, copy);
  return copy;
}

/** The file of a program's part: its name has a hash. */
function chunk(copy: string, part: string): string {
  const chunks = join(copy, 'dist/chunks');
  const names = readdirSync(chunks, { recursive: true, encoding: 'utf8' });
  const [found, ...others] = names.filter((name) => name.replace(/-[\w-]{8}\.cjs$/, '') === part);
  if (found === undefined || others.length > 0) throw new Error(`${part}: not one of ${names.join(' ')}`);
  return join(chunks, found);
}

void t.test('a part of the package is missing while a bus starts', { skip: whyNot() }, async (t) => {
  const bench = await openBench(t, KERNEL);
  const copy = await copyPackage(bench);
  const starts = (): Promise<Outcome> => bench.try('"$@"', process.execPath, join(copy, 'dist/cli/main.cjs'), 'start');
  for (const [part, reason] of [
    ['control', /Cannot find module/],
    ['orphan', /Cannot find module/],
    ['server', /did not start/],
  ] as const) {
    const path = chunk(copy, part);
    await rename(path, `${path}.away`);
    t.match(await starts(), { status: 1, stderr: reason }, part);
    t.same(await bench.traces(), ['file: state/0'], 'nothing is left');
    t.same(readdirSync(join(bench.runtimeDir, 'state/0')), ['log'], 'but the log');
    await rename(`${path}.away`, path);
  }
  t.match(await starts(), { status: 0 });
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);
});

void t.test('no package, no node', { skip: whyNot() }, async (t) => {
  const bench = await openBench(t, KERNEL);
  const copy = await copyPackage(bench);
  await cp(process.execPath, bench.path('node'));
  const words = [bench.path('node'), join(copy, 'dist/cli/main.cjs'), 'start'];
  await bench.sh('"$@"', ...words);
  const served = await serve(t, new Bus(bench, await resolveBus('0', bench.runtimeDir)));
  const dist = join(copy, 'dist');
  await rename(dist, `${dist}.away`);
  await outlasts(t, served, () => rename(`${dist}.away`, dist), /server-not-started.*exit status 1/);
  // only part of the package is there, as during an update: the vbds must not break
  const driver = chunk(copy, 'drivers/ram/index');
  await rename(driver, `${driver}.away`);
  await outlasts(t, served, () => rename(`${driver}.away`, driver), /server-not-started.*driver ram cannot be loaded/);
  t.notMatch(await served.bus.log(), / broken /);
  await rename(bench.path('node'), bench.path('node.away'));
  await outlasts(t, served, () => rename(bench.path('node.away'), bench.path('node')), /server-not-started.*ENOENT/);
  await ends(t, served);
});
