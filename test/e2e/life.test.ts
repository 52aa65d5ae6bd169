/** The lives of buses and vbds: what begins and ends them, many at once, and what stands in the way of an end. */
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { patternBytes } from '../conformance/pattern.js';
import { Client, cannotMap, type Way } from './client.js';
import { collect, eventually } from './command.js';
import { type Bench, OTHERS, onDefaultTransport, openBench, type TestTransport } from './fixtures.js';
import { busInfo, kill } from './kill-server.js';

const KIB = 1 << 10;

t.setTimeout(360_000);

onDefaultTransport(t, ['dd', 'cmp'], live, OTHERS);

async function live(t: Test, transport: TestTransport): Promise<void> {
  const isRoot = transport.runner === undefined;
  const tell = async (name: string, body: (t: Test, bench: Bench) => Promise<void>): Promise<void> => {
    await t.test(name, async (t) => body(t, await openBench(t, transport)));
  };

  // what they left may take its time to go, so it is looked at last
  const killed = await openBench(t, transport);
  await killAttaches(killed, isRoot ? [120, 240, 360, 480, 600] : [150, 450]);

  await tell('a bus that attach began ends with its last vbd', endWithLastVbd);
  await tell('a dead bus is told, repaired by attach, and cleared away by stop', repairDeadBus);
  // in a namespace the rest shows what it has shown for the user
  if (transport.runner?.name === 'namespace') {
    await t.test('an attach that is killed leaves a vbd or nothing', (t) => findVbdsOrNothing(t, killed));
    return;
  }
  await tell('a bus that was started stays without vbds', stayUntilStopped);
  if (isRoot) await tell('buses by name and by directory, side by side', keepApart);
  const count = isRoot ? 12 : 4;
  await tell(`${count} attaches at once get ${count} vdevs`, (t, bench) => attachAtOnce(t, bench, count));
  const rounds = isRoot ? 6 : 2;
  await tell(`attached and detached ${rounds} times`, (t, bench) => attachAgainAndAgain(t, bench, rounds));
  await t.test('a vbd that is held', async (t) => {
    const bench = await openBench(t, transport);
    await bench.begin();
    for (const way of isRoot ? (['read', 'write', 'path', 'map'] as const) : (['path', 'map'] as const)) {
      const skip = way === 'map' && cannotMap;
      await t.test(HOLDS[way], { skip }, (t) => refuseThenForce(t, bench, 'aio', way));
    }
    for (const way of isRoot ? (['read', 'write'] as const) : (['write'] as const)) {
      await t.test(`of ram, ${HOLDS[way]}`, (t) => refuseThenForce(t, bench, 'ram', way));
    }
    await t.test('a working directory on the bus', (t) => leaveDirectory(t, bench));
  });
  if (isRoot) await tell('detach --wait waits for those who hold it', waitForHolders);
  await tell('nothing acknowledged is lost by force, and the bus ends', keepWhatWasWritten);
  await t.test('an attach that is killed leaves a vbd or nothing', (t) => findVbdsOrNothing(t, killed));
}

const HOLDS = {
  read: 'open for reading',
  write: 'open for writing',
  path: 'opened as a path only (O_PATH)',
  map: 'mapped, with the descriptor closed',
};

async function stayUntilStopped(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', 64 * KIB);
  t.equal(await bench.begin(), `${bench.runtimeDir}/bus/0`);
  t.equal(await bench.begin(), `${bench.runtimeDir}/bus/0`, 'started twice is started');
  await bench.attach(image);
  await bench.detach('xvda');
  t.same(await bench.list(), []);
  t.equal((await bench.mounts()).length, 1, 'the bus is there without vbds');
  await bench.attach(image);
  t.match(JSON.parse(await bench.succeed(['stop', '--json'])), [{ vdev: 'xvda', image }], 'stop tells what went');
  t.same(await bench.traces(), []);
  t.equal((await bench.fusetap(['stop'])).status, 3, 'stopped is gone');
  if (bench.transport.runner !== undefined) return;

  await bench.attach(image);
  await bench.begin();
  await bench.detach('xvda');
  t.equal((await bench.mounts()).length, 1, 'a bus that attach began can be made to stay');
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);
}

async function endWithLastVbd(t: Test, bench: Bench): Promise<void> {
  const images = [await bench.image('a.img', 64 * KIB), await bench.image('b.img', 64 * KIB)] as const;
  const first = await bench.attach(images[0]);
  await bench.attach(`ram:${images[1]}`);
  t.equal((await bench.busProcesses()).length, 2, 'a keeper and a server');
  await bench.detach(images[0]);
  t.same(
    (await bench.list()).map(({ vdev }) => vdev),
    ['xvdb'],
    'the other one stays',
  );
  t.equal((await bench.try('cat "$1"', first)).status, 1, 'the path of the first is gone');
  await bench.detach('51728');
  t.same(await bench.traces(), [], 'by its number, the last: processes, mount and files are gone');
}

async function keepApart(t: Test, bench: Bench): Promise<void> {
  const names = ['a.img', 'b.img', 'c.img'];
  for (const [index, name] of names.entries()) await bench.image(name, (index + 1) * 64 * KIB);
  const directory = await bench.makeDirectory('disks');
  t.equal(await bench.attach('a.img'), `${bench.runtimeDir}/bus/0/xvda`);
  t.equal(await bench.attach('b.img', '--bus', 'guest-7.hvm'), `${bench.runtimeDir}/bus/guest-7.hvm/xvda`);
  t.equal(await bench.attach('c.img', '--bus', './disks'), `${directory}/xvda`);
  const all = await bench.list();
  t.same(all.map(({ size }) => size / KIB).sort(), [128, 192, 64], 'ls tells of all');
  t.equal(new Set(all.map(({ keeperPid }) => keeperPid)).size, 3, 'each has a keeper of its own');
  const one = JSON.parse(await bench.succeed(['ls', '--json', '--bus', directory])) as unknown[];
  t.match(one, [{ path: `${directory}/xvda`, image: bench.path('c.img') }]);

  await bench.succeed(['detach', 'xvda'], { env: { FUSETAP_BUS: 'guest-7.hvm' } });
  t.equal((await bench.list()).length, 2, 'the environment names the bus');
  await bench.detach(`${directory}/xvda`);
  t.equal(
    await bench.sh('ls -A disks; stat -f -c %T disks | grep -v fuse >/dev/null'),
    '',
    'the directory is itself again',
  );
  await bench.detach(bench.path('a.img'));
  t.same(await bench.traces(), []);
}

async function attachAtOnce(t: Test, bench: Bench, count: number): Promise<void> {
  const images = Array.from({ length: count }, (_, index) => bench.path(`${index}.img`));
  for (const [index, image] of images.entries()) {
    await bench.sh('printf "$2" > "$1"; truncate -s 64K "$1"', image, `image ${index}`);
  }
  // no bus is there yet: they also race for who begins it
  const paths = await Promise.all(images.map((image, index) => bench.attach(`${index % 2 ? 'ram' : 'aio'}:${image}`)));
  t.equal(new Set(paths).size, count, 'different paths');
  const first = Array.from({ length: count }, (_, i) => `xvd${String.fromCharCode(97 + i)}`);
  t.same(paths.map((path) => path.split('/').at(-1)).sort(), first, 'the first ones');
  const pairs = paths.flatMap((path, index) => [path, images[index] as string]);
  await bench.sh('while [ $# -gt 0 ]; do cmp "$1" "$2"; shift 2; done', ...pairs);
  t.equal(new Set((await bench.list()).map(({ keeperPid }) => keeperPid)).size, 1, 'on one bus');
  await bench.detach(...paths.slice(1));
  t.same(
    (await bench.list()).map(({ path }) => path),
    [paths[0]],
  );
  await bench.detach('--all');
  t.same(await bench.traces(), []);
}

async function attachAgainAndAgain(t: Test, bench: Bench, rounds: number): Promise<void> {
  const image = await bench.image('disk.img', 256 * KIB, 256 * KIB);
  for (let round = 0; round < rounds; round++) {
    // half of them each begin and end a bus, half are on one that stays
    if (round === rounds / 2) await bench.begin();
    const driver = ['aio', 'ram', 'sync'][round % 3];
    const vbd = await bench.attach(`${driver}:${image},xvdc`);
    await bench.sh(
      'printf "$2" | dd of="$1" bs=8 seek="$2" conv=notrunc status=none; cat "$1" > /dev/null',
      vbd,
      `${round}`,
    );
    await bench.detach('xvdc');
  }
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);
  const model = patternBytes(0, 256 * KIB, 1);
  for (let round = 0; round < rounds; round++) if (round % 3 !== 1) model.write(String(round), round * 8);
  await bench.execute('dd', ['of=model', 'status=none'], { input: model });
  await bench.sh('cmp disk.img model');
}

/** Kills attaches at different moments, each on a bus of its own. */
async function killAttaches(bench: Bench, moments: readonly number[]): Promise<void> {
  for (const afterMs of moments) {
    const image = await bench.image(`${afterMs}.img`, 64 * KIB);
    const child = bench.startFusetap(['attach', image, '--bus', `killed-after-${afterMs}-ms`]);
    const end = collect(child);
    await delay(afterMs);
    child.kill('SIGKILL');
    await end;
  }
}

async function findVbdsOrNothing(t: Test, bench: Bench): Promise<void> {
  await eventually('every bus has a vbd, or is gone', 45_000, async () => {
    const vbds = await bench.list();
    t.ok(vbds.every(({ state, size }) => state === 'running' && size === 64 * KIB));
    return (await bench.busProcesses()).length === 2 * vbds.length;
  });
  for (const { path } of await bench.list()) await bench.detach(path);
  // one that was killed before it had begun a keeper leaves empty directories, which are in nobody's way
  const begun = (await bench.traces()).flatMap((trace) => /^file: state\/(.*)$/.exec(trace)?.[1] ?? []);
  const image = await bench.image('again.img', 64 * KIB);
  for (const bus of begun) {
    await bench.attach('--bus', bus, image);
    await bench.detach('--bus', bus, 'xvda');
  }
  t.same(await bench.traces(), []);
}

async function repairDeadBus(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', 64 * KIB, 64 * KIB);
  // fusermount3 takes the mount of a user's dead bus away, of the others' somebody has to
  const isTakenAway = bench.transport.runner?.name === 'user';
  const killBoth = async (): Promise<void> => {
    const { keeperPid, serverPid } = await busInfo(bench);
    for (const pid of [keeperPid, serverPid]) if (pid !== null) kill(pid);
    await eventually('both processes are gone', 20_000, async () => (await bench.busProcesses()).length === 0);
    if (!isTakenAway) return;
    await eventually('the mount is gone', 20_000, async () => (await bench.mounts()).length === 0);
  };
  const vbd = await bench.attach(image);
  await killBoth();
  const refused = await bench.try('timeout -s KILL 10 cat "$1"', vbd);
  const error = isTakenAway ? /No such file or directory/ : /Transport endpoint is not connected/;
  t.match(refused, { status: 1, stderr: error }, 'nobody hangs');
  const told = await bench.fusetap(['ls', '--json']);
  const remark = isTakenAway ? /^$/ : /^fusetap: bus 0 is dead[^\n]*\n$/;
  t.match(told, { status: isTakenAway ? 0 : 1, stdout: '[]\n', stderr: remark }, 'ls tells');

  t.equal(await bench.attach(image), vbd, 'attach repairs');
  await bench.sh('cmp "$1" "$2"', vbd, image);
  t.equal((await bench.mounts()).length, 1, 'the dead mount is gone');

  await killBoth();
  await bench.succeed(['stop']);
  t.same(await bench.traces(), [], 'stop clears away');
}

async function refuseThenForce(t: Test, bench: Bench, driver: string, way: Way): Promise<void> {
  const image = await bench.image('disk.img', 64 * KIB, 64 * KIB);
  const vbd = await bench.attach(`${driver}:${image}`);
  const client = await Client.open(t, bench, way, vbd);
  const refused = await bench.fusetap(['detach', 'xvda', '--json']);
  t.equal(refused.status, 4);
  t.match(refused.stderr, /^fusetap: [^\n]+\n$/);
  t.match(refused.stderr, new RegExp(`xvda.* in use by .*\\b${client.pid}\\b`));
  t.match(JSON.parse(refused.stdout), { error: { code: 'BUSY', holders: [{ pid: client.pid, command: 'perl' }] } });
  await bench.sh('cmp "$1" "$2"', vbd, image);
  if (way !== 'path' && way !== 'map') t.equal(await client.call('read', 0, 4096), '4096', 'it works as before');

  await bench.detach('--force', 'xvda');
  if (way !== 'path' && way !== 'map') {
    t.equal(await client.call('read', 0, 4096), 'Input/output error');
    if (way === 'write') t.equal(await client.call('write', 0, 10), 'Input/output error');
  }
  t.equal(await Client.tryOpen(t, bench, 'read', vbd), 'No such file or directory', 'it cannot be opened any more');
  t.equal(await bench.attach(`${driver}:${image}`), vbd, 'its place is free while the old one is still held');
  const again = await Client.open(t, bench, 'read', vbd);
  t.equal(await again.call('read', 0, 4096), '4096');
  if (way === 'read') t.equal(await client.call('read', 0, 4096), 'Input/output error', 'the old handle stays dead');
  await again.release();
  await client.release();
  await bench.detach('xvda');
}

/** Who stands in the directory of the bus holds no vbd, and must not keep the bus from ending. */
async function leaveDirectory(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', 64 * KIB);
  const vbd = await bench.attach(image, '--bus', 'other');
  const child = bench.startProgram('sh', ['-c', 'cd "$1"; echo there; read line', 'sh', vbd.replace(/\/xvda$/, '')]);
  const end = collect(child);
  await new Promise((resolve) => child.stdout?.once('data', resolve));
  await bench.detach('--bus', 'other', 'xvda');
  t.notOk((await bench.mounts()).some(({ path }) => path.endsWith('/other')));
  child.stdin?.end();
  await end;
}

async function waitForHolders(t: Test, bench: Bench): Promise<void> {
  const vbd = await bench.attach(await bench.image('disk.img', 64 * KIB));
  const client = await Client.open(t, bench, 'read', vbd);
  if (bench.transport.runner === undefined) {
    const begun = performance.now();
    t.equal((await bench.fusetap(['detach', '--wait', '1', 'xvda'])).status, 4, 'in vain');
    t.ok(performance.now() - begun >= 1000, 'for as long as it was told');
  }
  // longer than the test waits: so it returns because they let go
  const detached = bench.fusetap(['detach', '--wait', '600', 'xvda']);
  await delay(1500);
  t.equal(await client.call('read', 0, 4096), '4096', 'who holds it goes on undisturbed');
  await client.release();
  t.match(await detached, { status: 0, stderr: '' }, 'and returns when they let go');
  t.same(await bench.traces(), []);
}

async function keepWhatWasWritten(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', 64 * KIB);
  const vbd = await bench.attach(image);
  const client = await Client.open(t, bench, 'write', vbd);
  for (let at = 0; at < 64 * KIB; at += 4096) t.equal(await client.call('write', at, 4096, 'w'), '4096');
  await bench.succeed(['stop', '--force']);
  t.equal(await bench.sh('tr -d w < disk.img | wc -c'), '0');
  t.match(await client.call('read', 0, 10), /^(Input\/output error|Transport endpoint is not connected)$/);
  await client.release();
  t.same(await bench.traces(), []);
}
