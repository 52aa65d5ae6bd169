/**
 * A fault of one vbd breaks only that vbd: its image cannot be opened any more, its driver does not open again, its
 * file system is gone when the image is closed.
 */
import { existsSync, readdirSync, readlinkSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { eventually } from '../e2e/command.js';
import { JUST_USER, onDefaultTransport, type TestTransport, whyNot } from '../e2e/fixtures.js';
import { type Bus, startBus } from './bus.js';

t.setTimeout(240_000);

const MIB = 1 << 20;
const read = (bus: Bus, path: string) => bus.bench.sh('head -c 8 "$1"', path);
const write = (bus: Bus, path: string, text: string) =>
  bus.bench.sh('printf "$2" | dd of="$1" conv=notrunc,fsync status=none', path, text);

void t.test('an image that cannot be opened again', async (t) => {
  onDefaultTransport(t, [], keepOpen, JUST_USER);
});

async function keepOpen(t: Test, transport: TestTransport): Promise<void> {
  const bus = await startBus(t, {}, '0', transport);
  const { bench } = bus;
  const image = await bench.image('a.img', MIB);
  const vbd = await bus.attach({ driver: 'aio', image });
  const ram = await bus.attach({ driver: 'ram', image: await bench.image('golden.img', MIB), passthrough: 'off' });
  await write(bus, ram.path, 'PRECIOUS');
  const isRoot = transport.runner === undefined;
  // root can open a file whatever its mode is, so for root it is immutable
  await bench.sh(isRoot ? 'chattr +i "$1"' : 'chmod 0444 "$1"', image);
  await bus.killServer();
  t.equal(await read(bus, ram.path), 'PRECIOUS');
  // an immutable file cannot be written through a descriptor that is open already either
  if (!isRoot) await write(bus, vbd.path, 'goes on!');
  t.equal(await bench.sh('cmp -n 8 "$1" "$2" && echo same', vbd.path, image), 'same');
  await bus.upgrade();
  t.match((await bus.info()).vbds, [{ broken: null }, { broken: null }]);
  // the locks belong to the open file description that both processes share, and outlive the keeper
  const { keeperPid } = await bus.info();
  process.kill(keeperPid as number, 'SIGKILL');
  await eventually(
    'the server is an orphan',
    20_000,
    async () => (await bus.info().catch(() => null))?.state === 'orphaned',
  );
  await bench.sh(isRoot ? 'chattr -i "$1"' : 'chmod 0644 "$1"', image);
  t.match(await bench.fusetap(['attach', '--bus', 'b', image]), { status: 4, stderr: /attached with mode w/ });
  await bench.succeed(['stop']);
  t.equal(
    (await bench.fusetap(['attach', '--bus', 'b', image])).status,
    0,
    'the locks are released when the server ends',
  );
  await bench.succeed(['stop', '--bus', 'b']);
  t.same(await bench.traces(), []);
}

/** A driver that opens normally the first time, then as the file `mood` tells. */
const MOODY = `import { existsSync, readFileSync } from 'node:fs';
export default {
  name: 'moody',
  image: 'required',
  async open({ image, options }) {
    const mood = existsSync(options.mood) ? readFileSync(options.mood, 'utf8') : '';
    if (mood === 'throws') throw new Error('not today');
    if (mood === 'silent') await new Promise(() => {});
    if (mood === 'spins') for (;;);
    if (mood === 'dies') process.kill(process.pid, 'SIGKILL');
    return { size: image.sizeBytes, read(buffer) { buffer.fill(77); }, close() {} };
  },
};`;

void t.test('a driver that does not open again', { skip: whyNot() }, async (t) => {
  const bus = await startBus(t, { FUSETAP_SILENCE_LIMIT_MS: '6000' });
  const { bench } = bus;
  await writeFile(bench.path('moody.mjs'), MOODY);
  const options = { mood: bench.path('mood') };
  const image = await bench.image('a.img', MIB);
  const sick = await bus.attach({ driver: bench.path('moody.mjs'), image, vdev: 'xvda', mode: 'r', options });
  const well = await bus.attach({ driver: 'ram', image: await bench.image('golden.img', MIB), passthrough: 'off' });
  await write(bus, well.path, 'PRECIOUS');
  const reasons = { throws: /not today/, silent: /no answer/, dies: /3 servers died/ };
  for (const [mood, broken] of Object.entries(reasons)) {
    await writeFile(options.mood, mood);
    if (mood === 'throws') {
      const refused = await bench.fusetap(['upgrade']);
      t.match(
        refused,
        { status: 1, stderr: /a new server cannot open xvda: .*not today/ },
        'an upgrade that would break a vbd is refused',
      );
      t.equal(await read(bus, sick.path), 'MMMMMMMM');
    }
    process.kill(await bus.serverPid(), 'SIGKILL');
    t.equal(await read(bus, well.path), 'PRECIOUS', `${mood}: the other vbd is served`);
    await eventually('a server is running', 60_000, async () => (await bus.info()).state === 'running');
    t.match((await bus.info()).vbds, [{ broken }, { broken: null }], mood);
    t.match(await bench.try('head -c 8 "$1"', sick.path), { stderr: /Input\/output error/ });
    t.match(await bench.succeed(['show', 'xvda']), broken);
    await rm(options.mood);
    await bus.upgrade();
    t.equal(await read(bus, sick.path), 'MMMMMMMM', `${mood}: an upgrade repairs it`);
    t.match((await bus.info()).vbds, [{ broken: null }, { broken: null }]);
  }
  t.equal((await bus.log()).match(/ broken /g)?.length, 3, 'the log has each break once');
  await rm(bench.path('moody.mjs'));
  await bus.killServer();
  t.match((await bus.info()).vbds, [{ broken: /moody/ }], 'its module is gone');
  await bus.detach('xvda');
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);
});

void t.test(
  'a file system that is gone when its image is closed',
  { skip: whyNot('qemu-storage-daemon') },
  async (t) => {
    const bus = await startBus(t);
    const { bench } = bus;
    const [back, image] = [await bench.image('back.img', MIB), await bench.image('dead.img', 1)];
    const words = `driver=file,node-name=f,filename=${back}`;
    const daemon = bench.startProgram('qemu-storage-daemon', [
      ...['--blockdev', words],
      ...['--export', `type=fuse,id=e,node-name=f,mountpoint=${image},writable=on`],
    ]);
    daemon.on('error', () => {});
    t.teardown(() => daemon.kill('SIGKILL'));
    t.teardown(() => bench.try('umount -l "$1"', image));
    await eventually('it is mounted', 20_000, async () => (await bench.mounts()).some(({ path }) => path === image));
    const dead = await bus.attach({ driver: 'aio', image });
    const well = await bus.attach({ driver: 'ram', image: back, mode: 'w' }).catch(() => null);
    daemon.kill('SIGKILL');
    await bench.sh('umount -l "$1"', image);
    t.match(await bench.fusetap(['detach', dead.vdev]), { status: 1, stderr: /detached .* but not all is durable/ });
    t.match(await bench.fusetap(['detach', dead.vdev]), { status: 3 }, 'it is gone');
    if (well !== null) t.equal(await bench.sh('head -c 8 "$1" | wc -c', well.path), '8');
    await bench.succeed(['stop']);
    t.same(await bench.traces(), []);
  },
);

/** The number of open files of a process, without pipes, sockets and the like, which Node opens and closes itself. */
function openFiles(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).filter((fd) => {
    const path = `/proc/${pid}/fd/${fd}`;
    // skip descriptors that were closed since the directory was read
    return existsSync(`/proc/${pid}/fdinfo/${fd}`) && !/^(?:pipe|socket|anon_inode)/.test(readlink(path));
  }).length;
}

function readlink(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return 'pipe';
  }
}

void t.test('attach, detach and restarts leak no descriptor', { skip: whyNot() }, async (t) => {
  const bus = await startBus(t);
  const { bench } = bus;
  const [image, golden] = [await bench.image('a.img', MIB), await bench.image('golden.img', MIB)];
  const round = async (): Promise<void> => {
    await bus.attach({ driver: 'aio', image, vdev: 'xvdb' });
    await bus.attach({ driver: 'ram', image: golden, vdev: 'xvdc', mode: 'r', passthrough: 'off' });
    await bus.detach('xvdb');
    await bus.detach('xvdc');
  };
  await bus.attach({ driver: 'sync', image: await bench.image('stays.img', MIB) });
  await round();
  const count = async (): Promise<number[]> => {
    const { keeperPid, serverPid } = await bus.info();
    return [openFiles(keeperPid as number), openFiles(serverPid as number)];
  };
  const before = await count();
  for (let i = 0; i < 50; i++) await round();
  t.same(await count(), before, 'after attaches and detaches');
  // a server loads the orphan code a moment after its start
  const isAsBefore = async (): Promise<boolean> => String(await count()) === String(before);
  for (let i = 0; i < 4; i++) {
    const attaching = round().catch(() => {});
    await bus.killServer();
    await attaching;
    for (const vdev of ['xvdb', 'xvdc']) await bus.detach(vdev).catch(() => {});
  }
  await eventually('as many are open as before', 20_000, isAsBefore);
  const sockets = readdirSync(`/proc/${(await bus.info()).keeperPid}/fd`).length;
  await bus.killServer();
  const later = readdirSync(`/proc/${(await bus.info()).keeperPid}/fd`).length;
  t.ok(Math.abs(later - sockets) <= 2, `${sockets} open, then ${later}`);
});
