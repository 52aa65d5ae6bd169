/**
 * A server whose keeper is dead, or does not answer: it grants memory, is paused for copies, flushes when it is told to
 * end, and needs no file of the package that is installed by then.
 */
import { cp, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { BusInfo } from '../../mount/control/interface.js';
import { collect, eventually } from '../e2e/command.js';
import { type Bench, JUST_USER, onDefaultTransport, openBench, type TestTransport, whyNot } from '../e2e/fixtures.js';
import { standStill } from '../e2e/stand-still.js';
import { type Bus, startBus, startBusOn } from './bus.js';

t.setTimeout(240_000);
const skip = whyNot('dd', 'perl');

const MIB = 1 << 20;
const FILL = 'dd if=/dev/urandom of="$1" bs=64k seek="$2" count="$3" conv=notrunc status=none';
/** threads ask the keeper for 64 MiB at a time */
const PIECES = 1500;

async function killKeeper(bus: Bus): Promise<BusInfo> {
  process.kill((await bus.info()).keeperPid as number, 'SIGKILL');
  return await eventually('the server is an orphan', 20_000, async () => {
    const info = await bus.info().catch(() => undefined);
    return info?.state === 'orphaned' ? info : undefined;
  });
}

onDefaultTransport(t, ['dd'], grantMemory, JUST_USER);

/** Threads and the event loop fill holes without a keeper, within the limit. */
async function grantMemory(t: Test, transport: TestTransport): Promise<void> {
  const bus = await startBusOn(await openBench(t, transport), { FUSETAP_RAM_LIMIT: '250M' });
  const { bench } = bus;
  const image = await bench.image('ram.img', 400 * MIB);
  const vbd = await bus.attach({ driver: 'ram', image, passthrough: 'off' });
  const filters = [
    { name: 'offset', value: '4096' },
    { name: 'delay', value: '0' },
  ];
  const slow = await bus.attach({ driver: 'ram', image, passthrough: 'off', filters });
  const { keeperPid } = await bus.info();
  await standStill(keeperPid);
  const begun = performance.now();
  await bench.sh(FILL, vbd.path, '0', `${PIECES}`);
  t.comment(`${PIECES / 16} MiB of holes, the keeper stopped: ${Math.round(performance.now() - begun)} ms`);
  process.kill(keeperPid as number, 'SIGCONT');
  await killKeeper(bus);
  await bench.sh(FILL, vbd.path, `${PIECES}`, '1000');
  await bench.sh(FILL, slow.path, '3000', '100');
  const { status, stderr } = await bench.try(FILL, vbd.path, '3200', '3000');
  t.not(status, 0, 'the limit is enforced');
  t.match(stderr, /No space/);
  t.match(JSON.parse(await bench.succeed(['memory', '--json'])), {
    images: [{ holders: [{ bus: '0', vdev: vbd.vdev }, { vdev: slow.vdev }] }],
  });
  const [stats] = JSON.parse(await bench.succeed(['stats', '--json']));
  t.ok(stats.write.requests >= PIECES, 'requests are counted');
  await bench.succeed(['stop']);
  t.same(await bench.traces(), [], 'nothing is left');
}

/** Writes a growing number to the first block, then to the last, for ever. */
const WRITER = `
  open my $f, '+<', $ARGV[0] or die $!;
  for (my $n = 1; ; $n++) {
    for my $at (0, $ARGV[1] - 4096) { sysseek $f, $at, 0; syswrite($f, pack('Q', $n) . ('x' x 4088)) == 4096 or die $!; }
  }
`;

t.test('a copy of a ram image that an orphan shares is consistent', { skip }, async (t) => {
  const a = await startBus(t);
  const { bench } = a;
  const b = await startBusOn(bench, {}, 'b');
  const image = await bench.image('ram.img', 16 * MIB, 16 * MIB);
  const shared = await a.attach({ driver: 'ram', image, passthrough: 'off' });
  const other = await b.attach({ driver: 'ram', image, passthrough: 'off' });
  const writer = bench.startProgram('perl', ['-e', WRITER, shared.path, String(16 * MIB)], { timeoutMs: 100_000 });
  const written = collect(writer);
  await a.ask('POST', `/vbds/${shared.vdev}/pause`);
  await killKeeper(a);
  t.match(
    JSON.parse(await readFile(`${a.place.stateDir}/bus.json`, 'utf8')),
    { vbds: [{ paused: true }] },
    'still paused',
  );
  await bench.succeed(['resume', '--bus', '0', shared.vdev]);
  for (let round = 0; round < 4; round++) {
    await bench.succeed(['save', '--bus', 'b', '--force', other.vdev, bench.path('copy.img')]);
    const copy = await readFile(bench.path('copy.img'));
    const [first, last] = [copy.readBigUInt64LE(0), copy.readBigUInt64LE(16 * MIB - 4096)];
    t.ok(first - last === 0n || first - last === 1n, `written ${first} first and ${last} last`);
  }
  t.match(await a.info(), { vbds: [{ state: 'orphaned' }] }, 'and goes on');
  writer.kill();
  await written;
  await bench.succeed(['stop', '--all']);
  t.same(await bench.traces(), []);
});

/** A disk of 1 MiB that records its flushes in a file; with the option `fails`, they fail. */
const FLUSHED = `
import { appendFileSync } from 'node:fs';
export default {
  name: 'flushed', image: 'none',
  async open({ options }) {
    return {
      size: 1 << 20, read: async (buffer) => void buffer.fill(0), write: async () => {}, close: async () => {},
      flush: async () => { appendFileSync(options.log, 'flushed\\n'); if (options.fails) throw new Error('no'); },
    };
  },
};
`;

t.test('an orphan that is told to end flushes', { skip }, async (t) => {
  const bus = await startBus(t);
  const { bench } = bus;
  await writeFile(bench.path('flushed.mjs'), FLUSHED);
  const driver = bench.path('flushed.mjs');
  const wish = { driver, image: null, options: { log: bench.path('log') } };
  await bus.attach({ ...wish, options: { ...wish.options, fails: '1' } });
  await bus.attach(wish);
  const { serverPid } = await killKeeper(bus);
  // as the end of a login session does
  for (const signal of ['SIGTERM', 'SIGHUP', 'SIGTERM']) process.kill(serverPid as number, signal);
  await eventually('its end', 30_000, async () => (await bench.busProcesses()).length === 0);
  t.same(await bench.traces(), ['file: state/0'], 'the log stays, and tells what is lost');
  t.match(await bus.log(), /not-durable/);
  t.equal(await readFile(bench.path('log'), 'utf8'), 'flushed\nflushed\n', 'all are flushed, even if one fails');
});

/** Copies the package to `package/dist` in the bench. */
async function copyPackage(bench: Bench): Promise<void> {
  const dist = resolve(import.meta.dirname, '../..');
  await bench.makeDirectory('package');
  for (const name of ['chunks', 'cli', 'mount']) {
    await cp(resolve(dist, name), bench.path(`package/dist/${name}`), { recursive: true });
  }
  for (const name of ['package.json', 'node_modules'])
    await symlink(resolve(dist, '..', name), bench.path(`package/${name}`));
}

t.test('the package is gone when the keeper dies', { skip }, async (t) => {
  const bus = await startBus(t);
  const { bench } = bus;
  await bench.succeed(['stop']);
  await copyPackage(bench);
  const attached = await bench.execute(process.execPath, [
    ...[bench.path('package/dist/cli/main.cjs'), 'attach', '--passthrough', 'off'],
    `ram:${await bench.image('ram.img', 128 * MIB, 1000)}`,
  ]);
  t.equal(attached.status, 0, attached.stderr);
  // within a second it loads the code that it may need later
  await delay(2_500);
  await rename(bench.path('package/dist'), bench.path('package/away'));
  await killKeeper(bus);
  await bench.sh(FILL, attached.stdout.trim(), '0', `${PIECES}`);
  t.match(await bus.info(), { state: 'orphaned', bookkeeping: null, vbds: [{ driver: 'ram' }] });
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);
});

t.test('the package goes away before all threads are loaded', { skip }, async (t) => {
  const bus = await startBus(t);
  const { bench } = bus;
  await bench.succeed(['stop']);
  await copyPackage(bench);
  const fusetap = bench.path('package/dist/cli/main.cjs');
  const attached = await bench.execute(process.execPath, [fusetap, 'attach', await bench.image('disk.img', MIB, MIB)]);
  const [dist, away] = [bench.path('package/dist'), bench.path('package/away')];
  // the second thread is loaded half a second after the first
  await rename(dist, away);
  t.equal(attached.status, 0, attached.stderr);
  const serverPid = await bus.serverPid();
  const threads = async (): Promise<number> => (await readdir(`/proc/${serverPid}/task`)).length;
  await delay(1_000);
  // a thread that is just being tried is not one that stays
  let before = await threads();
  for (let looks = 0; looks < 15; looks++) {
    await delay(100);
    before = Math.min(before, await threads());
  }
  const wasTried = (await bus.log()).includes('another thread cannot be loaded');
  t.equal(await bus.serverPid(), serverPid);
  t.notMatch(await bus.log(), /server-died/);
  await bench.sh('cmp "$1" "$2"', attached.stdout.trim(), bench.path('disk.img'));
  await rename(away, dist);
  // on a slow machine all may have been loaded before
  if (wasTried) await eventually('it is loaded', 20_000, async () => (await threads()) > before || undefined);
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);
});

t.test('the package comes back after the keeper has died', { skip }, async (t) => {
  const bus = await startBus(t);
  const { bench } = bus;
  await bench.succeed(['stop']);
  await copyPackage(bench);
  // so the server cannot load the orphan code ahead of time
  const [orphan, away] = [bench.path('package/dist/mount/server/orphan.cjs'), bench.path('package/away.js')];
  await rename(orphan, away);
  const fusetap = bench.path('package/dist/cli/main.cjs');
  const attached = await bench.execute(process.execPath, [fusetap, 'attach', await bench.image('disk.img', MIB, MIB)]);
  t.equal(attached.status, 0, attached.stderr);
  await eventually('it was tried', 20_000, async () => (await bus.log()).includes('cannot be loaded'));
  process.kill((await bus.info()).keeperPid as number, 'SIGKILL');
  await bench.sh('cmp "$1" "$2"', attached.stdout.trim(), bench.path('disk.img'));
  await rename(away, orphan);
  await eventually('it can be asked', 20_000, async () => {
    return (await bus.info().catch(() => undefined))?.state === 'orphaned';
  });
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);
});

t.test('somebody removes the socket, or all files of a bus', { skip }, async (t) => {
  const bus = await startBus(t);
  const { bench, place } = bus;
  const image = await bench.image('ram.img', 4 * MIB);
  const vbd = await bus.attach({ driver: 'ram', image, passthrough: 'off' });
  await rm(`${place.stateDir}/control.sock`);
  t.match(JSON.parse(await bench.succeed(['ls', '--json'])), [{ vdev: vbd.vdev, state: 'running' }]);
  await rm(`${place.stateDir}/control.sock`);
  await writeFile(`${place.stateDir}/control.sock`, 'not a socket');
  await eventually('it listens', 20_000, async () => bus.info().catch(() => undefined));
  for (const name of ['state', 'ram']) await rm(`${place.runtimeDir}/${name}`, { recursive: true });
  await eventually('it has written them again', 20_000, async () => {
    const { images } = JSON.parse(await bench.succeed(['memory', '--json']));
    return images.length === 1 && (await bus.info().catch(() => undefined)) !== undefined;
  });
  await killKeeper(bus);
  await rm(`${place.stateDir}/server.sock`);
  await eventually('an orphan too', 20_000, async () => bus.info().catch(() => undefined));
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);
});

t.test('a bus that does not listen is not called dead', { skip }, async (t) => {
  const bus = await startBus(t);
  const { bench, place } = bus;
  const { keeperPid } = await bus.info();
  await standStill(keeperPid);
  await rm(`${place.stateDir}/control.sock`);
  const { stderr } = await bench.fusetap(['show']);
  t.match(stderr, new RegExp(`does not listen, but its processes live \\(keeper ${keeperPid}, server`));
  process.kill(keeperPid as number, 'SIGCONT');
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);
});

t.test('SIGUSR1 opens no debugger', { skip }, async (t) => {
  const bus = await startBus(t);
  const { keeperPid, serverPid } = await bus.info();
  for (const pid of [keeperPid, serverPid]) process.kill(pid as number, 'SIGUSR1');
  await delay(1_000);
  t.notMatch(await bus.log(), /Debugger/);
  t.match(await bus.info(), { keeperPid, serverPid });
});
