import { fstat, ftruncate } from 'node:fs';
import { open } from 'node:fs/promises';
import { constants } from 'node:os';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { dir } from 'tmp-promise';
import { frontDisk } from '../../drivers/disk.js';
import type { ImageFile, Memory, PrepareContext } from '../../drivers/driver.js';
import { refuseIfTooLarge } from '../../drivers/ram/copy.js';
import ram, { type RamState } from '../../drivers/ram/index.js';
import { F_SEAL_GROW, F_SEAL_SHRINK, getSeals, MNT_DETACH, memfdCreate, mount, umount2 } from '../../system/libc.js';
import { closeFd } from '../conformance/close-fd.js';
import { asDisk, driverFactory, type MadeImage, makeImage } from '../conformance/driver-factory.js';
import { type Piece, patternBytes } from '../conformance/pattern.js';
import { diskSuite } from '../conformance/suite.js';
import { bySyncCalls } from '../conformance/sync-calls.js';

const fstatAsync = promisify(fstat);
const ftruncateAsync = promisify(ftruncate);
const abilities = { maxSizeBytes: 2 ** 42, holes: true, shrink: false };

diskSuite({ name: 'ram', test: t, factory: driverFactory(ram), abilities });
diskSuite({ name: 'ram in a thread', test: t, factory: driverFactory(ram, { wrap: bySyncCalls }), abilities });

const MIB = 1 << 20;
const NOTHING = { files: {}, disks: {} };

t.test('memory is what the image uses: holes and pages of zeros cost nothing', async (t) => {
  const { image, file } = await newImage(t, 64 * MIB + 1, [{ offset: 10 * MIB + 5, length: 3 * 4096, seed: 1 }]);
  await file.write(Buffer.alloc(4 * MIB), 0, 4 * MIB, 20 * MIB);
  const memory = newMemory(t);
  await prepareRam(image, memory);
  const { size, blocks } = await fstatAsync(memory.fd);
  t.equal(size, 64 * MIB + 1);
  t.equal(blocks * 512, 4 * 4096, 'the pages that the three unaligned ones touch');
});

t.test('the size of the memory is sealed, writing is not', async (t) => {
  const { image } = await newImage(t, 10_000);
  const memory = newMemory(t);
  t.same(await prepareRam(image, memory), { sizeBytes: 10_000 });
  t.equal(getSeals(memory.fd), F_SEAL_GROW | F_SEAL_SHRINK);
  await t.rejects(ftruncateAsync(memory.fd, 1), { code: 'EPERM' });
  await t.rejects(ftruncateAsync(memory.fd, 20_000), { code: 'EPERM' });
});

t.test('the image is never written, and its later changes are not seen', async (t) => {
  const { image, file } = await newImage(t, 10_000, [{ offset: 0, length: 10_000, seed: 1 }]);
  const memory = newMemory(t);
  const state = await prepareRam(image, memory);
  const disk = frontDisk(
    await ram.open({ ...NOTHING, memory, state, readOnly: false, isRepaired: true, options: {} }),
    {
      readOnly: false,
    },
  );
  await disk.write(patternBytes(0, 5000, 2), 0);
  const below = Buffer.alloc(10_000);
  await file.read(below, 0, 10_000, 0);
  t.ok(below.equals(patternBytes(0, 10_000, 1)));
  await file.write(patternBytes(5000, 5000, 3), 0, 5000, 5000);
  const above = Buffer.alloc(10_000);
  await disk.read(above, 0);
  t.ok(above.subarray(0, 5000).equals(patternBytes(0, 5000, 2)));
  t.ok(above.subarray(5000).equals(patternBytes(5000, 5000, 1)));
  await disk.close();
  await fstatAsync(memory.fd);
  await fstatAsync(image.fd);
});

t.test('all vbds of one memory are one disk', async (t) => {
  const { image } = await newImage(t, 10_000);
  const memory = newMemory(t);
  const state = await prepareRam(image, memory);
  const context = { ...NOTHING, memory, state, readOnly: false, isRepaired: true, options: {} };
  const one = frontDisk(await ram.open(context), { readOnly: false });
  const other = frontDisk(await ram.open({ ...context, readOnly: true }), { readOnly: true });
  await one.write(patternBytes(77, 500, 4), 77);
  const seen = Buffer.alloc(500);
  await other.read(seen, 77);
  t.ok(seen.equals(patternBytes(77, 500, 4)));
  await Promise.all([one.close(), other.close()]);
});

t.test('progress goes from none to all, and the event loop goes on', async (t) => {
  const { image } = await newImage(t, 64 * MIB, [{ offset: 8 * MIB, length: 32 * MIB, seed: 5 }]);
  const calls: [number, number][] = [];
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  await prepareRam(image, newMemory(t), { progress: (done, total) => void calls.push([done, total]) });
  clearInterval(timer);
  t.same(calls[0], [0, 32 * MIB]);
  t.same(calls.at(-1), [32 * MIB, 32 * MIB]);
  t.ok(calls.every(([done], i) => done >= (calls[i - 1]?.[0] ?? 0)));
  t.ok(turns > 1, `${turns} turns`);
});

t.test('an abort ends the copy with the reason given', async (t) => {
  const { image } = await newImage(t, 64 * MIB, [{ offset: 0, length: 32 * MIB, seed: 6 }]);
  const reason = new Error('given up');
  await t.rejects(prepareRam(image, newMemory(t), { signal: AbortSignal.abort(reason) }), reason);
  const controller = new AbortController();
  let last = 0;
  const progress = (done: number) => {
    last = done;
    if (done >= 4 * MIB) controller.abort(reason);
  };
  await t.rejects(prepareRam(image, newMemory(t), { signal: controller.signal, progress }), reason);
  t.ok(last < 8 * MIB, `stopped at ${last}`);
});

t.test('an image that changes its size while it is copied is refused', async (t) => {
  for (const size of [10 * MIB, 40 * MIB]) {
    const { image, file } = await newImage(t, 32 * MIB, [{ offset: 0, length: 32 * MIB, seed: 7 }]);
    let changed: Promise<void> | undefined;
    const progress = () => {
      changed ??= file.truncate(size);
    };
    await t.rejects(prepareRam(image, newMemory(t), { progress }), {
      code: 'FAILED',
      path: image.path,
      message: /size changed meanwhile from 33554432/,
    });
    await changed;
  }
});

t.test('a disk may be shorter than the file that it is in, as that of a format is', async (t) => {
  const { image } = await newImage(t, 2 * MIB, [{ offset: 0, length: 2 * MIB, seed: 9 }]);
  const memory = newMemory(t);
  t.same(await prepareRam({ ...image, sizeBytes: MIB }, memory), { sizeBytes: MIB });
  t.equal((await fstatAsync(memory.fd)).size, MIB);
});

t.test('memory that is too small is NO_SPACE', { skip: process.getuid?.() === 0 ? false : 'needs root' }, async (t) => {
  const { image } = await newImage(t, 4 * MIB, [{ offset: 0, length: 4 * MIB, seed: 8 }]);
  const holder = await dir();
  mount({ source: 'tmpfs', target: holder.path, fileSystemType: 'tmpfs', flags: 0, data: 'size=1m' });
  const file = await open(`${holder.path}/memory`, 'wx+');
  t.teardown(async () => {
    await file.close();
    umount2(holder.path, MNT_DETACH);
    await holder.cleanup();
  });
  await t.rejects(prepareRam(image, file), { code: 'NO_SPACE', errno: constants.errno.ENOSPC, path: image.path });
});

t.test('data that is more than memory has free is NO_SPACE before the copy, and says by how much', async (t) => {
  const image: ImageFile = { fd: -1, path: '/img/big', sizeBytes: 5000, kind: 'file' };
  refuseIfTooLarge(image, 4096, 4096);
  t.throws(() => refuseIfTooLarge(image, 4097, 4096), { code: 'NO_SPACE', message: /\/img\/big.* 1 more / });
});

t.test('an image that cannot be read names itself and the place', async (t) => {
  const { image } = await newImage(t, 10_000, [{ offset: 0, length: 10_000, seed: 1 }]);
  const writeOnly = await open(image.path, 'r+').then(async (handle) => {
    await handle.close();
    return open(image.path, 'a');
  });
  t.teardown(() => writeOnly.close());
  await t.rejects(prepareRam({ ...image, fd: writeOnly.fd }, newMemory(t)), {
    code: 'FAILED',
    path: image.path,
    offset: 0,
  });
});

t.test('prepare needs an image, open needs what prepare made', async (t) => {
  const { signal } = new AbortController();
  const memory = newMemory(t);
  const copy = { ...NOTHING, memory, path: '', signal, options: {}, progress: () => {} };
  await t.rejects(async () => await ram.prepare(copy), { code: 'USAGE' });
  const context = { ...NOTHING, readOnly: false, isRepaired: true, options: {} };
  await t.rejects(ram.open({ ...context, memory: null, state: null }), { code: 'FAILED' });
  await t.rejects(ram.open({ ...context, memory, state: { sizeBytes: 5 } }), {
    code: 'FAILED',
    message: /0 bytes, not the 5/,
  });
});

async function newImage(t: Test, size: number, pieces: Piece[] = []): Promise<MadeImage> {
  const made = await makeImage({ size, pieces, readOnly: false });
  t.teardown(() => made.dispose());
  return made;
}

function newMemory(t: Test): Memory {
  const fd = memfdCreate('ram-test');
  t.teardown(() => closeFd(fd));
  return { fd };
}

async function prepareRam(image: ImageFile, memory: Memory, changes: Partial<PrepareContext> = {}): Promise<RamState> {
  const { signal } = new AbortController();
  const given = { files: {}, disks: { file: await asDisk(image) }, options: {} };
  return ram.prepare({ ...given, memory, path: image.path, signal, progress: () => {}, ...changes });
}
