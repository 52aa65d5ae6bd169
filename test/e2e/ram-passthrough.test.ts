/**
 * Kernel passthrough: what may be passed through and what may not, that the kind of open is decided at attach for good,
 * and what holds for I/O that no userspace sees.
 */
import { readFile, stat } from 'node:fs/promises';
import t, { type Test } from 'tap';
import type { VbdInfo } from '../../mount/control/interface.js';
import type { Bus } from '../survival/bus.js';
import { Client, cannotMap } from './client.js';
import { eventually } from './command.js';
import { whyNot } from './fixtures.js';
import { attach, detachAll, MIB, openStage, pause, reset, resume, type Stage, save, statsOf } from './ram-stage.js';

t.setTimeout(150_000);

type Buses = Stage<'a' | 'b'>;
type Story = (t: Test, stage: Buses) => Promise<void>;

const STORIES: Record<string, Story> = {
  'what may be passed through, and what may not': chooseHow,
  'a write past the end of a file that is passed through': growImage,
  'where the kernel refuses': fallBack,
  'one registration for each vbd': openSideBySide,
  'mode r': refuseWriting,
  'pause, save and reset, while somebody has it': refuseHolding,
  'what still comes to the server': askServer,
  'which kind it is, is told': tell,
  'the kind of open never changes': keepKind,
  'a forced detach': cutOff,
};

void t.test('passthrough', { skip: whyNot('losetup', 'fallocate', 'perl') }, async (t) => {
  const stage = await openStage(t, ['a', 'b']);
  for (const [name, story] of Object.entries(STORIES)) {
    await t.test(name, async (t) => {
      await story(t, stage);
      await detachAll(stage.bus.b, stage.bus.a);
      await stage.isEmpty(t);
    });
  }
  await stage.end(t);
});

async function chooseHow(t: Test, { bench, bus: { a } }: Buses): Promise<void> {
  const image = await bench.image('disk.img', MIB, MIB);
  const device = await bench.loop(await bench.image('device.img', MIB));
  const filters = (name: string, value: string) => ({ filters: [{ name, value }] });
  const cases: [what: string, wish: Parameters<typeof attach>[1], auto: boolean, on: boolean | RegExp][] = [
    ['ram, mode w', { driver: 'ram', image }, true, true],
    ['ram, mode r', { driver: 'ram', image, mode: 'r' }, true, true],
    ['aio, mode w', { driver: 'aio', image }, false, true],
    ['aio, mode r', { driver: 'aio', image, mode: 'r' }, false, true],
    ['sync, mode r', { driver: 'sync', image, mode: 'r' }, false, true],
    ['sync, mode w', { driver: 'sync', image }, false, /each write durable/],
    ['an offset', { driver: 'ram', image, ...filters('offset', '4096') }, false, /no offset and no size limit/],
    ['a size limit', { driver: 'aio', image, ...filters('sizelimit', '4096') }, false, /no offset and no size limit/],
    ['a delay', { driver: 'ram', image, ...filters('delay', '1') }, false, /has to see each request/],
    ['an error', { driver: 'aio', image, ...filters('error', 'flush') }, false, /has to see each request/],
    ['a block device', { driver: 'aio', image: device }, false, /does not accept block devices/],
    ['a copy of one', { driver: 'ram', image: device }, true, true],
  ];
  for (const [what, wish, auto, on] of cases) {
    for (const [choice, expected] of [
      ['auto', auto],
      ['on', on],
      ['off', false],
    ] as const) {
      const attached = attach(a, { ...wish, passthrough: choice });
      if (typeof expected === 'boolean') {
        const vbd = await attached;
        t.equal(vbd.passthrough, expected, `${what}: ${choice}`);
        await a.detach(vbd.vdev);
      } else {
        await t.rejects(
          attached,
          { code: 'UNSUPPORTED', message: expected, hint: /auto or off/ },
          `${what}: ${choice}`,
        );
      }
    }
  }
  const refused = await bench.fusetap(['attach', '--bus', 'a', '--passthrough', 'on', `sync:${image}`]);
  t.match(refused, { status: 6, stdout: '', stderr: /xvda cannot be passed through.*each write durable/ });
  await bench.sh('losetup -d "$1"', device);
}

async function growImage(t: Test, { bench, bus: { a } }: Buses): Promise<void> {
  const image = await bench.image('grows.img', MIB, MIB);
  const { path } = await attach(a, { driver: 'aio', image, passthrough: 'on' });
  const client = await Client.open(t, bench, 'write', path);
  t.equal(await client.call('write', MIB - 2, 4), '4', 'across the end');
  t.equal((await stat(image)).size, MIB + 2, 'the image file grows: the kernel knows no end');
  t.match((await a.info()).vbds, [{ size: MIB, changedOutside: true }], 'show tells that it is not what it was');
  await bench.sh('truncate -s 1000 "$1"', image);
  t.equal(await client.call('read', 0, 4096), '1000', 'and one that shrinks reads short');
  await client.release();
}

/** aio on a file of another bus: the kernel stacks no FUSE on FUSE. */
async function fallBack(t: Test, { bench, bus: { a, b } }: Buses): Promise<void> {
  const below = await attach(a, { driver: 'aio', image: await bench.image('below.img', MIB, MIB) });
  const wish = { driver: 'aio', image: below.path, mode: 'r' } as const;
  const refusal = { code: 'UNSUPPORTED', message: /the kernel refuses it \(ELOOP\)/ };
  await t.rejects(attach(b, { ...wish, passthrough: 'on' }), refusal, 'an image on another bus');
  t.match(await attach(b, { ...wish, passthrough: 'auto' }), { passthrough: false }, 'by threads');

  for (const name of ['lower', 'upper', 'work', 'merged']) await bench.makeDirectory(name);
  const image = await bench.image('lower/disk.img', MIB, MIB);
  const mounted = await bench.try('mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay merged');
  if (mounted.status !== 0) return void t.comment(`no overlayfs here: ${mounted.stderr}`);
  const above = { driver: 'aio', image: bench.path('merged/disk.img'), mode: 'r' } as const;
  await t.rejects(attach(b, { ...above, passthrough: 'on' }), refusal, 'an image on overlayfs');
  const copied = await attach(b, { image: above.image, passthrough: 'on' });
  await bench.sh('cmp "$1" "$2"', copied.path, image);
  await b.detach(copied.vdev);
  await bench.sh('umount merged');
}

/** The kernel refuses an open of a node that is open under another registration (EIO). */
async function openSideBySide(t: Test, { bench, bus: { a } }: Buses): Promise<void> {
  const image = await bench.image('disk.img', MIB, MIB);
  const [one, other, readOnly] = [
    await attach(a, { image }),
    await attach(a, { image }),
    await attach(a, { image, mode: 'r' }),
  ];
  t.match([one, other, readOnly], [{ passthrough: true }, { passthrough: true }, { passthrough: true }]);
  const open = (path: string, way: 'read' | 'write'): Promise<Client> => Client.open(t, bench, way, path);
  const writers = [await open(one.path, 'write'), await open(one.path, 'write'), await open(other.path, 'write')];
  const readers = [await open(one.path, 'read'), await open(readOnly.path, 'read'), await open(readOnly.path, 'read')];
  for (const [i, writer] of writers.entries()) {
    t.equal(await writer.call('write', i * 10, 4, 'abc'[i] ?? ''), '4');
    await bench.sh(
      'test "$(tail -c +$2 "$1" | head -c 4)" = $3',
      readOnly.path,
      String(i * 10 + 1),
      'abc'[i]?.repeat(4) ?? '',
    );
  }
  for (const client of [...writers, ...readers]) await client.release();
}

async function refuseWriting(t: Test, { bench, bus: { a } }: Buses): Promise<void> {
  const image = await bench.image('disk.img', MIB, MIB);
  for (const driver of ['ram', 'aio', 'sync']) {
    const { path, vdev, passthrough } = await attach(a, { driver, image, mode: 'r', passthrough: 'on' });
    t.ok(passthrough);
    for (const way of ['write', 'append', 'truncate'] as const) {
      t.equal(await Client.tryOpen(t, bench, way, path), 'Read-only file system', `${driver}: O_RDWR, ${way}`);
    }
    // a shell's > would truncate; this is O_WRONLY alone, at first and through the descriptor that is open already
    const reopened = 'exec 3<"$1"; dd if=/dev/zero of=/proc/self/fd/3 count=1 conv=notrunc';
    for (const script of [
      'dd if=/dev/zero of="$1" count=1 conv=notrunc',
      reopened,
      'exec 3<"$1"; : 4<>/proc/self/fd/3',
    ]) {
      const { status, stderr } = await bench.try(script, path);
      t.not(status, 0, script);
      t.match(stderr, /Read-only file system/, script);
    }
    await bench.sh('cmp "$1" "$2"', path, image);
    await a.detach(vdev);
  }
}

/** Each on a vbd of its own: to find out that one is only mapped takes two seconds. */
async function refuseHolding(t: Test, { bench, bus: { a } }: Buses): Promise<void> {
  const copy = bench.path('copy.img');
  const acts = [
    { act: (vdev: string) => pause(a, vdev), hint: /--passthrough off/ },
    { act: (vdev: string) => save(a, vdev, copy), hint: /--passthrough off/ },
    { act: (vdev: string) => reset(a, vdev), hint: /close it there/ },
  ];
  const tryAll = acts.map(async ({ act, hint }, i) => {
    const { path, vdev } = await attach(a, { image: await bench.image(`${i}.img`, MIB, MIB) });
    for (const way of cannotMap ? (['write'] as const) : (['write', 'map'] as const)) {
      const client = await Client.open(t, bench, way, path);
      const refusal = { code: 'BUSY', message: /perl/, holders: [{ pid: client.pid }], hint };
      await t.rejects(act(vdev), refusal, `${way}: the holder, and what to do`);
      await bench.sh('head -c 10 "$1" > /dev/null', path);
      await client.release();
    }
    return { path, vdev };
  });
  const [first] = await Promise.all(tryAll);
  t.ok((await a.info()).vbds.every(({ state }) => state === 'running'));
  const { path, vdev } = first as { path: string; vdev: string };
  t.match(await pause(a, vdev), { state: 'paused' }, 'nobody has it: opens wait');
  const opening = Client.open(t, bench, 'read', path);
  t.equal(await Promise.race([opening.then(() => 'open'), pause(a, vdev).then(() => 'waits')]), 'waits');
  await resume(a, vdev);
  const opened = await opening;
  t.equal(await opened.call('read', 0, 10), '10');
  await opened.release();
  t.match(await save(a, vdev, copy), { path: copy, size: MIB });
  await reset(a, vdev);
  const again = (await a.info()).vbds.find((vbd) => vbd.vdev === vdev);
  t.match(again, { passthrough: true }, 'a reset changes nothing about it');
  await bench.sh('cmp "$1" "$2"', path, copy);
}

async function askServer(t: Test, stage: Buses): Promise<void> {
  const { bench } = stage;
  const { a } = stage.bus;
  const image = await bench.image('disk.img', 8 * MIB, 4 * MIB);
  const { path, vdev } = await attach(a, { image });
  const client = await Client.open(t, bench, 'write', path);
  const before = await stat(path);
  t.equal(before.blocks * 512, 4 * MIB, 'getattr');
  t.equal(await client.call('write', 0, 4096), '4096');
  t.equal(await client.call('read', 0, 4096), '4096');
  t.equal(await client.call('fsync'), 'ok');
  // a thread counts a request when it has answered it
  await eventually('an fsync is counted', 5000, async () => (await statsOf(a, vdev)).flush.requests === 1);
  t.equal(await client.call('seek', 0, 4), String(4 * MIB), 'lseek: the hole');
  await bench.sh('fallocate -p -o 1M -l 1M "$1"; fallocate -z -n -o 2M -l 1M "$1"', path);
  t.equal(await client.call('seek', 0, 4), String(MIB));
  t.equal(await stage.residentBytes(), 2 * MIB, 'punched and zeroed, and given back at once');
  await bench.sh('fallocate -o 6M -l 64k "$1"', path);
  t.equal(await stage.residentBytes(), 2 * MIB + 65536, 'allocated');
  const after = await stat(path);
  t.equal(after.blocks * 512, 2 * MIB + 65536);
  t.ok(after.mtimeMs > before.mtimeMs, 'the time of a write that the server never saw');
  const counted = await eventually('what came is counted', 5000, async () => {
    const stats = await statsOf(a, vdev);
    return stats.discard.requests === 2 && stats;
  });
  t.match(counted, { read: { requests: 0 }, write: { requests: 0 } }, 'and nothing of what is passed through');
  await client.release();
}

async function tell(t: Test, { bench, bus: { a } }: Buses): Promise<void> {
  const image = await bench.image('disk.img', MIB);
  await attach(a, { image });
  await attach(a, { image, passthrough: 'off' });
  const run = async (...words: string[]): Promise<string> => {
    const { stdout, stderr } = await bench.fusetap([...words, '--bus', 'a']);
    return stdout + stderr;
  };
  const [show, threads, stats, list] = await Promise.all([
    run('show', 'xvda'),
    run('show', 'xvdb'),
    run('stats'),
    run('ls', '--json'),
  ]);
  t.match(show, /^transport\s+kernel, passthrough$/m);
  t.match(threads, /^transport\s+kernel$/m);
  t.match(stats, /passed through by the kernel, so not counted: xvda\n/);
  t.match(JSON.parse(list), [
    { vdev: 'xvda', passthrough: true },
    { vdev: 'xvdb', passthrough: false },
  ]);
}

/** The kernel gives EIO to an open of another kind than those there are: each survivor proves that it is the same. */
async function keepKind(t: Test, { bench, bus: { a } }: Buses): Promise<void> {
  const image = await bench.image('disk.img', MIB, MIB);
  const vbds = [
    await attach(a, { image }),
    await attach(a, { image, mode: 'r' }),
    await attach(a, { driver: 'aio', image: await bench.image('on.img', MIB, MIB), passthrough: 'on' }),
    await attach(a, { image, passthrough: 'off' }),
  ];
  const kinds = vbds.map(({ passthrough }) => passthrough);
  t.same(kinds, [true, true, true, false]);
  const openAll = async (): Promise<Client[]> =>
    Promise.all(vbds.map(({ path, mode }) => Client.open(t, bench, mode === 'r' ? 'read' : 'write', path)));
  const clients = await openAll();
  const events: Record<string, () => Promise<unknown>> = {
    'the server dies': () => a.killServer(),
    'an upgrade': () => a.upgrade(),
    'the next server dies too': () => a.killServer(),
  };
  for (const [what, happen] of Object.entries(events)) {
    await happen();
    clients.push(...(await openAll()));
    t.same(
      (await a.info()).vbds.map(({ passthrough }) => passthrough),
      kinds,
      what,
    );
    for (const client of clients) t.equal(await client.call('read', 4096, 4096), '4096');
    t.equal(await clients[0]?.call('write', 0, 10), '10');
    await bench.sh('head -c 10 "$1" | grep -q xxxxxxxxxx', (vbds[3] as VbdInfo).path);
  }
  await isServedBy(t, a, 3);
  await Promise.all(clients.map((client) => client.release()));
}

async function isServedBy(t: Test, bus: Bus, servers: number): Promise<void> {
  t.match(await bus.info(), { state: 'running', restarts: servers });
}

async function cutOff(t: Test, { bench, bus: { a } }: Buses): Promise<void> {
  const image = await bench.image('disk.img', 4 * MIB, 4 * MIB);
  const { path, vdev } = await attach(a, { image });
  const [reader, writer, mapper] = [
    await Client.open(t, bench, 'read', path),
    await Client.open(t, bench, 'write', path),
    await Client.open(t, bench, 'map', path),
  ];
  t.equal(await writer.call('write', 0, 4096, 'x'), '4096');
  const mapped = async (): Promise<boolean> =>
    (await readFile(`/proc/${mapper.pid}/maps`, 'utf8')).includes(path.slice(path.lastIndexOf('/')));
  t.ok(await mapped());
  await t.rejects(a.detach(vdev), { code: 'BUSY' });
  await a.detach(vdev, '?force=1');
  t.equal(await reader.call('read', 0, 4096), 'Input/output error', 'old handles');
  t.equal(await writer.call('write', 0, 4096), 'Input/output error');
  t.equal(await writer.call('fsync'), 'Input/output error');
  t.equal(await Client.tryOpen(t, bench, 'read', path), 'No such file or directory');
  t.ok(await mapped(), 'a mapping lives until its process ends');
  for (const client of [reader, writer, mapper]) await client.release();
}
