/** Rule 1: a vbd has one cache. What one opener wrote, every other reads next: on any bus, and in the image. */
import { open } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { patternBytes } from '../conformance/pattern.js';
import { putMbr } from '../drivers/partitions/tables.js';
import { MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_READ_WRITE } from './caller.js';
import {
  asked,
  attachFor,
  type Ground,
  O_RDONLY,
  O_RDWR,
  prepareGround,
  WAYS,
  type Way,
  whyNotRules,
} from './fixture.js';
import { randomNumbers, seedOf } from './random.js';

t.setTimeout(120_000);

const SIZE = (1 << 20) + 1300;
const ROUNDS = 40;

void t.test('rule 1: one cache', { skip: whyNotRules() }, async (t) => {
  const ground = await prepareGround(t);
  for (const way of WAYS) {
    await t.test(way.label, async (t) => {
      const paths = await attachTwice(t, ground, way);
      await t.test('what one wrote all read next', (t) => writeHereReadThere(t, ground, paths));
      if (way.passthrough === 'on') await t.test('mappings', (t) => shareMappings(t, ground, paths));
      else await t.test('mappings', (t) => refuseSharedMappings(t, ground, paths));
      await t.test('sendfile and splice', (t) => sendAndSplice(t, ground, paths, way.passthrough === 'on'));
    });
  }
  for (const [label, prepare] of Object.entries(NEIGHBOURS)) {
    await t.test(label, async (t) => showWhenOpenedAgain(t, ground, await prepare(t, ground)));
  }
});

/** One image on both buses. @returns the two vbds, and the image where that is written too */
async function attachTwice(t: Test, { bench, a, b }: Ground, way: Way): Promise<string[]> {
  const image = await bench.image(`${way.driver}-${way.passthrough}.img`, SIZE, SIZE);
  const wish = { ...asked(way), image, mode: 'w!' } as const;
  const vbds = [await attachFor(t, a, wish), await attachFor(t, b, wish)];
  for (const { passthrough } of vbds) t.equal(passthrough, way.passthrough === 'on', 'is served so');
  return [...vbds.map(({ path }) => path), ...(way.writesImage ? [image] : [])];
}

async function writeHereReadThere(t: Test, { caller }: Ground, paths: string[]): Promise<void> {
  const random = randomNumbers(seedOf(t));
  const fds = await Promise.all(paths.map((path) => caller.open(path, O_RDWR)));
  for (let round = 0; round < ROUNDS; round++) {
    const length = 1 + random(random(2) === 0 ? 5000 : 200_000);
    const at = random(SIZE - length);
    const bytes = patternBytes(at, length, round + 2);
    const writer = random(fds.length);
    const written = await caller.call('pwrite', fds[writer] as number, at, bytes);
    if (written !== length) t.fail(`write ${length} bytes at ${at} through ${paths[writer]}: ${written}`);
    for (const [reader, fd] of fds.entries()) {
      const read = await caller.call('pread', fd, at, length);
      if (!bytes.equals(read as Buffer)) t.fail(`${paths[reader]} at ${at}, written through ${paths[writer]}`);
    }
  }
  t.pass(`${ROUNDS} rounds through ${fds.length} files`);
  for (const fd of fds) await caller.call('close', fd);
}

async function shareMappings(t: Test, { caller }: Ground, paths: string[]): Promise<void> {
  const fds = await Promise.all(paths.map((path) => caller.open(path, O_RDWR)));
  const maps: number[] = [];
  for (const fd of fds) maps.push((await caller.call('mmap', fd, 8192, PROT_READ_WRITE, MAP_SHARED)) as number);
  for (const [from, map] of maps.entries()) {
    const text = Buffer.from(`mapped in ${from}`);
    await caller.call('mwrite', map + 4096, text);
    for (const fd of fds) t.same(await caller.call('pread', fd, 4096, text.length), text, 'stored in one, read in all');
    const other = Buffer.from(`written to ${from}`);
    await caller.call('pwrite', fds[from] as number, 100, other);
    for (const at of maps) t.same(await caller.call('mread', at + 100, other.length), other, 'written to one, loaded');
  }
  for (const map of maps) await caller.call('munmap', map, 8192);
  for (const fd of fds) await caller.call('close', fd);
}

async function refuseSharedMappings(t: Test, { caller }: Ground, paths: string[]): Promise<void> {
  const [here, there] = [await caller.open(paths[0] as string, O_RDWR), await caller.open(paths[1] as string, O_RDWR)];
  for (const prot of [PROT_READ, PROT_READ_WRITE]) {
    t.equal(await caller.call('mmap', here, 4096, prot, MAP_SHARED), 'ENODEV', 'a shared mapping is a second cache');
  }
  const map = (await caller.call('mmap', here, 4096, PROT_READ, MAP_PRIVATE)) as number;
  const write = async (fd: number, text: string): Promise<void> => {
    t.equal(await caller.call('pwrite', fd, 0, Buffer.from(text)), text.length);
  };
  const mapped = async (): Promise<string> => String(await caller.call('mread', map, 4));
  await write(here, 'old.');
  t.equal(await mapped(), 'old.');
  await write(here, 'new.');
  t.equal(await mapped(), 'new.', 'a private mapping follows the writes of its own bus');

  // its page is in the kernel's cache now, which must not answer those who read
  await write(there, 'far!');
  t.equal(String(await caller.call('pread', here, 0, 4)), 'far!', 'read');
  await caller.call('munmap', map, 4096);
  for (const fd of [here, there]) await caller.call('close', fd);
}

/**
 * By threads, sendfile and splice are served from the kernel's cache of the bus, as private mappings are: it follows the
 * writes of its own bus, and every open empties it.
 * @param live passed through, where they read the one cache
 */
async function sendAndSplice(t: Test, { caller }: Ground, paths: string[], live: boolean): Promise<void> {
  const [here, there] = [await caller.open(paths[0] as string, O_RDWR), await caller.open(paths[1] as string, O_RDWR)];
  const sees = async (fd: number, text: string, when: string): Promise<void> => {
    for (const call of ['sendfile', 'splice']) {
      t.equal(String(await caller.call(call, fd, 100, text.length)), text, `${call} ${when}`);
    }
  };
  await caller.call('pwrite', here, 100, Buffer.from('own.'));
  await sees(here, 'own.', 'after a write on its own bus');
  await caller.call('pwrite', here, 100, Buffer.from('more'));
  await sees(here, 'more', 'after another');
  await caller.call('pwrite', there, 100, Buffer.from('far!'));
  if (live) await sees(here, 'far!', 'after a write on another bus');
  const again = await caller.open(paths[0] as string, O_RDWR);
  await sees(again, 'far!', 'of a file opened after a write on another bus');
  await caller.call('close', again);
  for (const fd of [here, there]) await caller.call('close', fd);
}

const PARTITION_AT = 1 << 20;

/** Two files of one bus that have the same bytes, and where in each. */
interface Neighbours {
  readonly read: { readonly path: string; readonly at: number };
  readonly written: { readonly path: string; readonly at: number };
}

const NEIGHBOURS: Record<string, (t: Test, ground: Ground) => Promise<Neighbours>> = {
  'a partition, written through its disk': async (t, ground) => {
    const { path } = await attachParted(t, ground, { driver: 'aio', passthrough: 'off' });
    return { read: { path: `${path}1`, at: 0 }, written: { path, at: PARTITION_AT } };
  },
  'a disk, written through its partition': async (t, ground) => {
    const { path } = await attachParted(t, ground, { driver: 'aio', passthrough: 'off' });
    return { read: { path, at: PARTITION_AT }, written: { path: `${path}1`, at: 0 } };
  },
  'a partition of a disk that is passed through': async (t, ground) => {
    const { path } = await attachParted(t, ground, { driver: 'ram', passthrough: 'on' });
    return { read: { path: `${path}1`, at: 0 }, written: { path, at: PARTITION_AT } };
  },
  'another vbd of the ram image': (t, ground) => attachNeighbours(t, ground, 'ram'),
  'another vbd of the image, by w!': (t, ground) => attachNeighbours(t, ground, 'aio'),
};

async function attachParted(t: Test, { a, bench }: Ground, wish: Pick<Way, 'driver' | 'passthrough'>) {
  const image = await bench.image(`parted-${wish.driver}.img`, 2 * PARTITION_AT);
  const file = await open(image, 'r+');
  const entry = { type: 0x83, start: PARTITION_AT / 512, count: PARTITION_AT / 512 };
  await file.write(putMbr(Buffer.alloc(512), 0, [entry]), 0, 512, 0);
  await file.close();
  return await attachFor(t, a, { ...wish, image, partitions: true });
}

async function attachNeighbours(t: Test, { a, bench }: Ground, driver: 'ram' | 'aio'): Promise<Neighbours> {
  const image = await bench.image(`neighbours-${driver}.img`, SIZE);
  const wish = { driver, image, mode: 'w!', passthrough: 'off' } as const;
  const [one, other] = [await attachFor(t, a, wish), await attachFor(t, a, wish)];
  return { read: { path: one.path, at: 0 }, written: { path: other.path, at: 0 } };
}

/**
 * read sees at once what is written through another file. Private mappings, sendfile and splice may show old pages until
 * the file is opened again.
 */
async function showWhenOpenedAgain(t: Test, { caller }: Ground, { read, written }: Neighbours): Promise<void> {
  const [reader, writer] = [await caller.open(read.path, O_RDONLY), await caller.open(written.path, O_RDWR)];
  const map = (await caller.call('mmap', reader, read.at + 4096, PROT_READ, MAP_PRIVATE)) as number;
  for (const text of ['one.', 'two.', 'more']) {
    // its pages are in the kernel's cache when the next text comes
    await caller.call('mread', map + read.at, 4);
    await caller.call('sendfile', reader, read.at, 4);
    await caller.call('pwrite', writer, written.at, Buffer.from(text));
    t.equal(String(await caller.call('pread', reader, read.at, 4)), text, 'read tells at once');
    const again = await caller.open(read.path, O_RDONLY);
    for (const call of ['sendfile', 'splice']) {
      t.equal(String(await caller.call(call, again, read.at, 4)), text, `${call} of the file opened again`);
    }
    t.equal(String(await caller.call('mread', map + read.at, 4)), text, 'a mapping, now that it was opened again');
    await caller.call('close', again);
  }
  await caller.call('munmap', map, read.at + 4096);
  for (const fd of [reader, writer]) await caller.call('close', fd);
}
