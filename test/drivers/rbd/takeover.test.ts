/** What the next server does with the client of the one before, which was killed: without a bus, step by step. */
import { openSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import type { Json } from '../../../drivers/driver.js';
import { readKeptHead } from '../../../drivers/kept-head.js';
import { eventually } from '../../e2e/command.js';
import { type RecordingHost, recordingHost } from '../nbd/open.js';
import { Ceph, whyNoCeph } from './ceph.js';
import { openRbd } from './open.js';

t.setTimeout(300_000);

const MIB = 1 << 20;
const skip = whyNoCeph();
const clusters = new Map<boolean, Promise<Ceph>>();
let images = 0;
t.teardown(async () => {
  for (const started of clusters.values()) await (await started.catch(() => null))?.stop();
});

function cluster(hasKeys = false): Promise<Ceph> {
  const started = clusters.get(hasKeys) ?? Ceph.start(join(tmpdir(), `ceph-${hasKeys}`), { hasKeys });
  clusters.set(hasKeys, started);
  return started;
}

/** A bus that keeps what it is given, as long as the test runs: the descriptors are its own. */
function keepingHost(): RecordingHost {
  const host = recordingHost();
  const own = (fd: number): number => openSync(`/proc/self/fd/${fd}`, 'r+');
  return { ...host, keep: async (facts, fds) => host.keep(facts, fds.map(own)) };
}

interface Stage {
  readonly ceph: Ceph;
  readonly image: string;
  /** the server that is going to be taken over */
  readonly old: Disk;
  readonly host: RecordingHost;
  /** opens the disk as the next server does; its first request makes it act */
  next(): Promise<{ disk: Disk; host: RecordingHost }>;
}

interface StageWish {
  readonly isShared?: boolean;
  /** the image has no exclusive lock */
  readonly isPlain?: boolean;
  /** a user of this name opens it, with a key */
  readonly user?: string;
}

async function stage({ isShared = false, isPlain = false, user }: StageWish = {}): Promise<Stage> {
  const ceph = await cluster(user !== undefined);
  const image = `disk${++images}`;
  if (isPlain) await ceph.rbd('create', image, '--size', '1M', '--image-feature', 'layering');
  else await ceph.create(image, MIB);
  const who = user === undefined ? {} : { id: user, keyring: await ceph.user(user) };
  const options = { uri: `rbd:${image}`, conf: ceph.conf, ...who };
  const host = keepingHost();
  const open = async (own: RecordingHost, kept: { facts: Json; fds: readonly number[] } | null): Promise<Disk> =>
    frontDisk(await openRbd(options, { kept, host: own, isShared }), { readOnly: false });
  const old = await open(host, null);
  await old.write(Buffer.from('old'), 0);
  const hosts = [host];
  const next = async (): Promise<{ disk: Disk; host: RecordingHost }> => {
    const own = keepingHost();
    const disk = await open(own, hosts.flatMap(({ kept }) => kept).at(-1) ?? null);
    hosts.push(own);
    return { disk, host: own };
  };
  return { ceph, image, old, host, next };
}

function addressesOf(facts: Json | undefined): string[] {
  return ((facts ?? {}) as { addresses?: string[] }).addresses ?? [];
}

async function textOf(disk: Disk, length: number): Promise<string> {
  const bytes = Buffer.alloc(length);
  await disk.read(bytes, 0);
  return bytes.toString();
}

const FENCED = { code: 'FAILED', errno: 5, message: /fenced: another client has taken the image/ };

for (const isShared of [false, true]) {
  t.test(`the first request fences the client before it (${isShared ? 'mode w!' : 'mode w'})`, { skip }, async (t) => {
    const { old, host, next } = await stage({ isShared });
    const { disk, host: nextHost } = await next();
    await old.write(Buffer.from('OLD'), 0);
    t.pass('opening does nothing: in an upgrade the server before still writes');
    await disk.write(Buffer.from('new'), 0);
    await t.rejects(old.write(Buffer.from('late'), 0), FENCED);
    await t.rejects(old.read(Buffer.alloc(1), 0), FENCED, 'and all that follows');
    t.equal(await textOf(disk, 4), 'new\0');
    t.match(host.states.at(-1), { is: 'broken', reason: /^fenced: / });
    t.same(nextHost.states, [], 'a takeover is no event');
    const [before] = addressesOf(host.kept.at(-1)?.facts);
    const kept = nextHost.kept.map(({ facts }) => addressesOf(facts));
    t.same(kept[0]?.[0], before, 'who dies in between leaves both clients to the next');
    t.equal(kept[0]?.length, 2);
    t.same(kept.at(-1), kept[0]?.slice(1), 'afterwards only its own');
    const { disk: third } = await next();
    t.equal(await textOf(third, 3), 'new', 'and so on');
    await t.rejects(disk.write(Buffer.from('x'), 0), FENCED);
    for (const each of [third, disk, old]) await each.close();
  });
}

t.test('after an orderly end there is nobody to fence', { skip }, async (t) => {
  const { ceph, old, host, next } = await stage();
  const { disk } = await next();
  await old.close();
  const [address] = addressesOf(host.kept.at(-1)?.facts);
  await disk.write(Buffer.from('new'), 0);
  t.notOk((await ceph.ceph('osd', 'blocklist', 'ls')).includes(`${address} `));
  t.equal(await textOf(disk, 3), 'new');
  await disk.close();
});

t.test('a server that never had a request leaves the next one to fence', { skip }, async (t) => {
  const { old, next } = await stage();
  const { disk: idle } = await next();
  await idle.close();
  await old.write(Buffer.from('old'), 0);
  t.pass('and takes nothing from the one before');
  const { disk } = await next();
  await disk.write(Buffer.from('new'), 0);
  await t.rejects(old.write(Buffer.from('late'), 0), FENCED);
  for (const each of [disk, old]) await each.close();
});

t.test('who has broken the lock meanwhile has the image', { skip }, async (t) => {
  const { ceph, image, old, next } = await stage();
  await ceph.breakLock(image);
  const stranger = frontDisk(await openRbd({ uri: `rbd:${image}`, conf: ceph.conf }), { readOnly: false });
  await stranger.write(Buffer.from('stranger'), 0);
  const { disk, host } = await next();
  await t.rejects(disk.write(Buffer.from('late'), 0), FENCED, 'while it has it');
  t.match(host.states, [{ is: 'broken', reason: /^fenced: another client has taken the image: 127/ }]);
  await stranger.write(Buffer.from('x'), 8);
  t.equal(await textOf(stranger, 9), 'strangerx', 'and is not disturbed');
  for (const each of [disk, stranger, old]) await each.close();
});

t.test('and if it has released it again, its bytes are not ours', { skip }, async (t) => {
  const { ceph, image, old, next } = await stage();
  await ceph.breakLock(image);
  const { disk } = await next();
  await t.rejects(disk.read(Buffer.alloc(1), 0), { message: /broken the lock of the image/ });
  for (const each of [disk, old]) await each.close();
});

t.test('a takeover that fails or dies while it fences is no other client', { skip }, async (t) => {
  const { ceph, image, old, next } = await stage({ user: 'tap' });
  await ceph.allow('tap', 'allow r');
  const { disk: second, host } = await next();
  const waiting = t.rejects(second.write(Buffer.from('second'), 0), { errno: 5, message: /given up/ });
  await eventually('it may not fence', 60_000, async () => host.states.length > 0);
  t.match(host.states, [{ is: 'reconnecting', reason: /does not let this user fence/ }]);
  second.giveUp();
  await waiting;
  await second.close();
  // what its next step would have done
  await ceph.breakLock(image);
  await ceph.allow('tap', 'profile rbd');
  const { disk: third, host: thirdHost } = await next();
  t.equal(await textOf(third, 3), 'old');
  await third.write(Buffer.from('new'), 0);
  t.same(thirdHost.states, []);
  await t.rejects(old.write(Buffer.from('late'), 0), FENCED);
  for (const each of [third, old]) await each.close();
});

t.test('a disk that was fenced stays fenced, whoever serves it', { skip }, async (t) => {
  const { ceph, old, host, next } = await stage({ isShared: true });
  const [address = ''] = addressesOf(host.kept.at(-1)?.facts);
  await ceph.ceph('osd', 'blocklist', 'add', address);
  await eventually('the OSD knows it', 60_000, () =>
    old.write(Buffer.from('x'), 0).then(
      () => undefined,
      () => true,
    ),
  );
  await t.rejects(old.read(Buffer.alloc(1), 0), FENCED);
  const { disk: second, host: secondHost } = await next();
  await t.rejects(second.read(Buffer.alloc(1), 0), FENCED);
  t.match(secondHost.states, [{ is: 'broken' }]);
  for (const each of [second, old]) await each.close();
  const { disk: third } = await next();
  await t.rejects(third.write(Buffer.from('x'), 0), FENCED, 'also after an orderly end');
  await third.close();
});

t.test('without an exclusive lock there is mode w!, which is taken over all the same', { skip }, async (t) => {
  const { old, next } = await stage({ isShared: true, isPlain: true });
  const { disk, host } = await next();
  await disk.write(Buffer.from('new'), 0);
  await t.rejects(old.write(Buffer.from('late'), 0), FENCED);
  t.equal(await textOf(disk, 4), 'new\0');
  t.same(host.states, []);
  for (const each of [disk, old]) await each.close();
});

t.test('an exclusive lock that was disabled meanwhile protects nothing', { skip }, async (t) => {
  const { ceph, image, old, next } = await stage();
  await old.close();
  await ceph.rbd('feature', 'disable', image, 'fast-diff', 'object-map', 'exclusive-lock');
  const { disk, host } = await next();
  await t.rejects(disk.write(Buffer.from('x'), 0), { errno: 5, message: /its exclusive lock was disabled/ });
  t.match(host.states, [{ is: 'broken' }]);
  await disk.close();
});

t.test('a snapshot that was removed and made again is another one', { skip }, async (t) => {
  const ceph = await cluster();
  const image = `disk${++images}`;
  await ceph.create(image, MIB);
  await ceph.rbd('snap', 'create', `${image}@one`);
  const options = { uri: `rbd:${image}@one`, conf: ceph.conf };
  const host = keepingHost();
  const open = async (): Promise<Disk> =>
    frontDisk(await openRbd(options, { kept: host.kept.at(-1) ?? null, host, readOnly: true }), { readOnly: true });
  const first = await open();
  const second = await open();
  t.equal(await textOf(second, 1), '\0', 'the same one is served');
  for (const each of [first, second]) await each.close();
  await ceph.rbd('snap', 'rm', `${image}@one`, '--no-progress');
  await ceph.rbd('snap', 'create', `${image}@one`);
  const third = await open();
  await t.rejects(third.read(Buffer.alloc(1), 0), {
    message: /the snapshot was removed, and another one has its name/,
  });
  await third.close();
});

t.test('an image that was removed and made again is another one', { skip }, async (t) => {
  const { ceph, image, old, next } = await stage();
  await old.close();
  await ceph.rbd('rm', '--no-progress', image);
  await ceph.create(image, MIB);
  const { disk, host } = await next();
  await t.rejects(disk.read(Buffer.alloc(1), 0), { message: /another one has its name/ });
  t.match(host.states, [{ is: 'broken' }]);
  await disk.close();
});

t.test('nothing acknowledged is ever undurable: a bus without a server need not flush', { skip }, async (t) => {
  const { old, host } = await stage();
  const [fd] = host.kept.at(-1)?.fds ?? [];
  const head = readKeptHead(fd ?? -1);
  t.equal(head?.[2], head?.[3], 'the two counters of the head are equal');
  await old.close();
});

t.test('what was kept and is damaged is refused', { skip }, async (t) => {
  const { ceph, image, old, host } = await stage();
  const options = { uri: `rbd:${image}`, conf: ceph.conf };
  const { facts = null, fds = [] } = host.kept.at(-1) ?? {};
  for (const kept of [
    { facts: null, fds },
    { facts, fds: [] },
    { facts: { ...(facts as { [key: string]: Json }), addresses: [1] }, fds },
    { facts: { ...(facts as { [key: string]: Json }), size: 'x' }, fds },
  ]) {
    await t.rejects(openRbd(options, { kept: kept as { facts: Json; fds: number[] }, host }), { message: /damaged/ });
  }
  await old.close();
});
