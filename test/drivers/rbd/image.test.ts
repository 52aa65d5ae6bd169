/** Images of a real cluster without a bus: snapshots, namespaces, users, and what is refused. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import { loadLibrbd } from '../../../system/librbd.js';
import { Ceph, whyNoCeph } from './ceph.js';
import { type OpenWish, openRbd } from './open.js';

t.setTimeout(300_000);

const MIB = 1 << 20;
const skip = whyNoCeph();

const clusters = new Map<boolean, Promise<Ceph>>();
function cluster(hasKeys = false): Promise<Ceph> {
  const started = clusters.get(hasKeys) ?? Ceph.start(join(tmpdir(), `ceph-${hasKeys}`), { hasKeys });
  clusters.set(hasKeys, started);
  return started;
}
t.teardown(async () => {
  for (const started of clusters.values()) await (await started.catch(() => null))?.stop();
});

async function opened(uri: string, wish: OpenWish = {}, more: Record<string, string> = {}): Promise<Disk> {
  const { conf } = await cluster();
  return frontDisk(await openRbd({ uri, conf, ...more }, wish), { readOnly: wish.readOnly ?? false });
}

async function textOf(disk: Disk, offset: number, length: number): Promise<string> {
  const bytes = Buffer.alloc(length);
  await disk.read(bytes, offset);
  return bytes.toString();
}

t.test('a snapshot stays as it is, and is only read', { skip }, async (t) => {
  const ceph = await cluster();
  await ceph.create('snapped', 4 * MIB);
  const disk = await opened('rbd:snapped');
  await disk.write(Buffer.from('before'), 0);
  await ceph.rbd('snap', 'create', 'snapped@one');
  await disk.write(Buffer.from('behind'), 0);
  const snapshot = await opened('rbd:snapped@one', { readOnly: true });
  t.equal(await textOf(snapshot, 0, 6), 'before');
  t.equal(await textOf(disk, 0, 6), 'behind');
  t.equal(snapshot.readOnly, true);
  await snapshot.close();
  await disk.close();
  await t.rejects(opened('rbd:snapped@one'), { code: 'DENIED', hint: /mode r.*rbd clone/ });
  await t.rejects(opened('rbd:snapped@two', { readOnly: true }), { code: 'NOT_FOUND', message: /no snapshot 'two'/ });
});

t.test('a clone has the bytes of its parent until it is written', { skip }, async (t) => {
  const ceph = await cluster();
  await ceph.create('golden', 8 * MIB, '--object-size', '1M');
  const parent = await opened('rbd:golden');
  await parent.write(Buffer.alloc(2 * MIB, 'p'), MIB);
  await parent.close();
  await ceph.rbd('snap', 'create', 'golden@base');
  await ceph.rbd('clone', '--rbd-default-clone-format', '2', 'golden@base', 'clone');
  const disk = await opened('rbd:clone');
  await disk.write(Buffer.from('c'), MIB + 1);
  t.equal(await textOf(disk, MIB, 3), 'pcp');
  await disk.zero(2 * MIB, MIB, { punch: true });
  t.equal(await textOf(disk, 2 * MIB - 2, 4), 'pp\0\0');
  const extents = await disk.extents(0, 8 * MIB);
  if (loadLibrbd().isAtLeast(1, 17)) {
    const isHole = extents.some(({ offset, length, hole }) => hole && offset <= 4 * MIB && offset + length === 8 * MIB);
    t.ok(isHole, 'its holes are known');
  } else {
    t.same(
      extents,
      [{ offset: 0, length: 8 * MIB, hole: false }],
      'an older librbd may forget the bytes of its parent',
    );
  }
  const rest = await disk.extents(MIB + 1, 1);
  t.equal(rest[0]?.hole, false);
  await disk.close();
});

t.test('images of the same name in two namespaces are two images', { skip }, async (t) => {
  const ceph = await cluster();
  await ceph.rbd('namespace', 'create', 'rbd/ns');
  await ceph.create('rbd/ns/twin', MIB);
  await ceph.create('twin', MIB);
  const [inside, outside] = [await opened('rbd:rbd/ns/twin'), await opened('rbd:twin')];
  await inside.write(Buffer.from('in'), 0);
  await outside.write(Buffer.from('ou'), 0);
  t.equal(await textOf(inside, 0, 2), 'in');
  await inside.close();
  await outside.close();
  await t.rejects(opened('rbd:rbd/none/twin'), { code: 'NOT_FOUND' });
});

t.test('what is discarded and what is zeroed is exact to the byte', { skip }, async (t) => {
  const ceph = await cluster();
  await ceph.create('exact', 12 * MIB);
  const disk = await opened('rbd:exact');
  await disk.write(Buffer.alloc(12 * MIB, 'x'), 0);
  for (const punch of [true, false]) {
    for (const [offset, length] of [
      [1, 1],
      [4095, 2],
      [70_001, 65_536],
      [4 * MIB - 3, 6],
      [5 * MIB + 7, 4 * MIB],
    ] as const) {
      await disk.zero(offset, length, { punch });
      const text = await textOf(disk, offset - 1, length + 2);
      const zeros = text.slice(1, -1);
      t.ok(text.startsWith('x') && text.endsWith('x') && zeros === '\0'.repeat(length), `${punch} ${offset}+${length}`);
      await disk.write(Buffer.alloc(length, 'x'), offset);
    }
  }
  await disk.close();
});

t.test('of two writers the second is refused, unless it takes no lock', { skip }, async (t) => {
  const ceph = await cluster();
  await ceph.create('wanted', MIB);
  const first = await opened('rbd:wanted');
  await first.write(Buffer.from('first'), 0);
  await t.rejects(opened('rbd:wanted'), {
    code: 'BUSY',
    message: /^'rbd\/wanted' is locked by the client 127\.0\.0\.1:0\/\d+$/,
    hint: /rbd status/,
  });
  const reader = await opened('rbd:wanted', { readOnly: true });
  t.equal(await textOf(reader, 0, 5), 'first', 'who only reads asks for no lock');
  await reader.close();
  await first.close();
  const shared = await opened('rbd:wanted', { isShared: true });
  await t.rejects(opened('rbd:wanted'), { code: 'BUSY', message: /is open elsewhere; watched by 127/ });
  const other = await opened('rbd:wanted', { isShared: true });
  await other.write(Buffer.from('other'), 0);
  t.equal(await textOf(shared, 0, 5), 'other');
  await other.close();
  await shared.close();
  const last = await opened('rbd:wanted');
  await last.close();
});

t.test('an image that has shrunk gives EIO, never zeros; the rest is served', { skip }, async (t) => {
  const ceph = await cluster();
  await ceph.create('shrinks', 8 * MIB);
  const disk = await opened('rbd:shrinks');
  await disk.write(Buffer.alloc(8 * MIB, 'x'), 0);
  await ceph.rbd('resize', 'shrinks', '--size', '4M', '--allow-shrink');
  const shrunk = { code: 'FAILED', errno: 5, message: /has shrunk since it was attached/ };
  t.equal(await textOf(disk, 0, 3), 'xxx');
  for (const offset of [4 * MIB - 1, 4 * MIB, 8 * MIB - 2]) {
    await t.rejects(disk.read(Buffer.alloc(2), offset), shrunk, `read at ${offset}`);
  }
  await t.rejects(disk.write(Buffer.alloc(2), 4 * MIB), shrunk, 'a write behind the end');
  await t.rejects(disk.flush(), shrunk, 'a flush: written bytes are gone');
  await t.rejects(disk.write(Buffer.alloc(2), 4 * MIB - 1), shrunk, 'a write across the end');
  await t.rejects(disk.zero(4 * MIB - 1, 2), shrunk);
  await t.rejects(disk.extents(0, 8 * MIB), shrunk);
  await disk.write(Buffer.from('y'), 4 * MIB - 1);
  t.equal(disk.size, 8 * MIB);
  await ceph.rbd('resize', 'shrinks', '--size', '8M');
  await disk.flush();
  t.equal(await textOf(disk, 4 * MIB, 2), '\0\0', 'and all of it, when it is as large as before');
  await disk.close();
});

t.test('a durable write to what has gone fails at once', { skip }, async (t) => {
  const ceph = await cluster();
  await ceph.create('cut', 8 * MIB);
  const disk = await opened('rbd:cut');
  await disk.write(Buffer.from('x'), 0, { durable: true });
  await ceph.rbd('resize', 'cut', '--size', '4M', '--allow-shrink', '--no-progress');
  await disk.write(Buffer.from('x'), 0, { durable: true });
  await ceph.rbd('resize', 'cut', '--size', '8M', '--no-progress');
  await disk.flush();
  await ceph.rbd('resize', 'cut', '--size', '4M', '--allow-shrink', '--no-progress');
  await t.rejects(disk.write(Buffer.alloc(2), 4 * MIB - 1, { durable: true }), { errno: 5, message: /has shrunk/ });
  await disk.close();
});

t.test('data is data from wherever it is asked', { skip }, async (t) => {
  const ceph = await cluster();
  await ceph.create('sparse', 16 * MIB, '--object-size', '1M');
  const disk = await opened('rbd:sparse');
  for (const at of [2, 5, 6, 11, 15]) await disk.write(Buffer.from('data'), at * MIB + 1000);
  const holes = (await disk.extents(0, 16 * MIB)).filter(({ hole }) => hole);
  t.same(holes[0], { offset: 0, length: 2 * MIB, hole: true });
  t.equal(holes.length, 4);
  for (const start of [0, 1, 2 * MIB - 1, 2 * MIB + 1000, 5 * MIB + 999, 6 * MIB + 1, 11 * MIB + 1003]) {
    const extents = await disk.extents(start, 16 * MIB - start);
    for (const at of [2, 5, 6, 11, 15]) {
      const byte = Math.max(start, at * MIB + 1000);
      if (byte >= at * MIB + 1004) continue;
      const found = extents.find(({ offset, length }) => offset <= byte && byte < offset + length);
      t.equal(found?.hole, false, `${at} MiB, asked from ${start}`);
    }
  }
  await disk.close();
});

t.test('what cannot be attached says why', { skip }, async (t) => {
  const ceph = await cluster();
  await t.rejects(opened('rbd:none'), { code: 'NOT_FOUND', message: /'rbd\/none': there is no such image/ });
  await t.rejects(opened('rbd:nopool/x'), { code: 'NOT_FOUND', message: /there is no pool 'nopool'/ });
  await t.rejects(openRbd({ uri: 'rbd:x', conf: '/none/ceph.conf' }), {
    code: 'NOT_FOUND',
    message: /'?\/none\/ceph.conf/,
  });
  const broken = join(mkdtempSync(join(tmpdir(), 'conf-')), 'ceph.conf');
  writeFileSync(broken, '[global\nfsid');
  await t.rejects(openRbd({ uri: 'rbd:x', conf: broken }), { code: /^(NOT_FOUND|FAILED)$/ });
  await ceph.rbd('create', 'plain', '--size', '1M', '--image-feature', 'layering');
  await t.rejects(opened('rbd:plain'), { code: 'UNSUPPORTED', hint: /rbd feature enable .* exclusive-lock/ });
  const shared = await opened('rbd:plain', { isShared: true });
  await shared.write(Buffer.from('x'), 0);
  t.same(await shared.extents(0, MIB), [{ offset: 0, length: MIB, hole: false }], 'without a table all is data');
  await shared.close();
  await ceph.create('cached', MIB);
  await ceph.rbd('config', 'image', 'set', 'rbd/cached', 'rbd_cache', 'true');
  await t.rejects(opened('rbd:cached'), { code: 'UNSUPPORTED', message: /its own configuration sets rbd_cache/ });
  await ceph.rbd('config', 'image', 'rm', 'rbd/cached', 'rbd_cache');
  await (await opened('rbd:cached')).close();
  await ceph.create('empty', 0);
  await t.rejects(opened('rbd:empty'), { code: 'USAGE', message: /has 0 bytes/ });
});

t.test('users have keys, and the rights that they need', { skip }, async (t) => {
  const ceph = await cluster(true);
  const { conf } = ceph;
  await ceph.create('secret', MIB);
  const [writer, reader] = [await ceph.user('tap'), await ceph.user('look', 'rbd-read-only')];
  const open = async (id: string, keyring: string, readOnly = false): Promise<Disk> =>
    frontDisk(await openRbd({ uri: `rbd:secret:id=${id}`, conf, keyring }, { readOnly }), { readOnly });
  const disk = await open('tap', writer);
  await disk.write(Buffer.from('x'), 0);
  await disk.close();
  const read = await open('look', reader, true);
  t.equal(await textOf(read, 0, 1), 'x');
  await read.close();
  await t.rejects(open('look', reader), { code: 'DENIED', message: /does not let client.look use it/ });
  await t.rejects(open('none', writer), { code: /^(DENIED|NOT_FOUND)$/, message: /client\.none/ });
  await t.rejects(open('tap', '/none/keyring'), { code: 'NOT_FOUND', message: /^\/none\/keyring cannot be read/ });
  await ceph.ceph('auth', 'del', 'client.tap');
  await t.rejects(open('tap', writer), { code: 'DENIED', message: /does not let client.tap in/ });
});
