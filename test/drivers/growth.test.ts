/** What grows: whole regular files that may be written, through filters that show all of a disk; nothing else. */
import { fstatSync } from 'node:fs';
import t, { type Test } from 'tap';
import aio from '../../drivers/aio/index.js';
import { frontDisk } from '../../drivers/disk.js';
import type { ImageFile, RawDisk, Window } from '../../drivers/driver.js';
import { FusetapError } from '../../drivers/errors.js';
import { gated } from '../../drivers/filters/gated.js';
import { makeFilter } from '../../drivers/filters/index.js';
import { tellErrors } from '../../drivers/filters/with-filters.js';
import { wrapDisk } from '../../drivers/filters/wrap-disk.js';
import { partitionDisk } from '../../drivers/partitions/partition-disk.js';
import { joinDisks } from '../../drivers/segments/join-disks.js';
import { windowDisk } from '../../drivers/segments/window.js';
import { E } from '../../system/libc.js';
import { bufferDisk } from '../conformance/buffer-disk.js';
import { makeImage } from '../conformance/driver-factory.js';

const SIZE = 8192;
const writable = { readOnly: false };

async function imageOf(t: Test): Promise<ImageFile> {
  const made = await makeImage({ size: SIZE, pieces: [{ offset: 0, length: SIZE, seed: 1 }], readOnly: false });
  t.teardown(() => made.dispose());
  return made.image;
}

function openAio(image: ImageFile, readOnly = false): Promise<RawDisk> {
  return aio.open({
    files: { file: image },
    disks: {},
    memory: null,
    state: null,
    readOnly,
    isRepaired: true,
    options: {},
  });
}

t.test('filters that show all of a disk forward growth', async (t) => {
  const image = await imageOf(t);
  const raw = await openAio(image);
  const filters = [
    (next: RawDisk) => wrapDisk(next, {}),
    (next: RawDisk) => gated(wrapDisk(next, { activate: async () => {} })),
    (next: RawDisk) => tellErrors(next, () => {}),
    makeFilter({ name: 'delay', value: '0' }),
  ];
  const disk = frontDisk(
    filters.reduce((next, filter) => filter(next), raw),
    writable,
  );
  await disk.growth?.grow(20_000);
  t.equal(disk.size, 20_000);
  t.equal(fstatSync(image.fd).size, 20_000);
  t.equal(await disk.write(Buffer.alloc(10, 1), 19_995), 5);
});

t.test('what shows a part of a disk, or does not write, does not grow', async (t) => {
  const image = await imageOf(t);
  const raw = await openAio(image);
  const front = frontDisk(raw, writable);
  const window: Window = { fd: image.fd, start: 0, size: SIZE, kind: 'file', readOnly: false, durable: false };
  const others: Record<string, RawDisk> = {
    offset: makeFilter({ name: 'offset', value: '0' })(raw),
    sizelimit: makeFilter({ name: 'sizelimit', value: String(SIZE) })(raw),
    'read-only': makeFilter({ name: 'read-only', value: '' })(raw),
    'one part': joinDisks([{ disk: front, start: 0, size: SIZE }]),
    'two parts': joinDisks([
      { disk: front, start: 0, size: SIZE / 2 },
      { disk: front, start: SIZE / 2, size: SIZE / 2 },
    ]),
    'a window': windowDisk(window, async () => {}),
    'a block device': await openAio({ ...image, kind: 'block' }),
    'mode r': await openAio(image, true),
  };
  const partition = partitionDisk(raw, 0, SIZE, false);
  for (const [name, other] of Object.entries({ ...others, partition })) t.equal(other.growth, undefined, name);
  await partition.close();
  t.equal(frontDisk(raw, { readOnly: true }).growth, undefined);
});

t.test('a part of what has grown has no segments: these end at the old end', async (t) => {
  const disk = frontDisk(await openAio(await imageOf(t)), writable);
  await disk.growth?.grow(2 * SIZE);
  t.equal(disk.segments?.[0]?.size, SIZE);
  const [before, across] = [0, SIZE / 2].map((start) => joinDisks([{ disk, start, size: SIZE }]));
  t.equal(before?.segments?.[0]?.size, SIZE);
  t.equal(across?.segments, undefined);
  const bytes = Buffer.alloc(SIZE, 1);
  await across?.read(bytes, 0);
  t.ok(bytes.subarray(SIZE / 2).every((byte) => byte === 0));
});

t.test('a server takes over the size of a file that a server before it has made larger', async (t) => {
  const image = await imageOf(t);
  await frontDisk(await openAio(image), writable).growth?.grow(3 * SIZE);
  const next = frontDisk(await openAio(image), writable);
  t.equal(next.size, SIZE, 'the size as it was at attach');
  t.equal(await next.growth?.measure(), 3 * SIZE);
  t.equal(next.size, 3 * SIZE);
});

t.test('a file that has shrunk does not grow: zeros must not replace what was lost', async (t) => {
  const made = await makeImage({ size: SIZE, pieces: [], readOnly: false });
  t.teardown(() => made.dispose());
  const disk = frontDisk(await openAio(made.image), writable);
  await made.file.truncate(SIZE / 2);
  await t.rejects(async () => disk.growth?.grow(2 * SIZE), { code: 'FAILED', errno: E.EIO, operation: 'grow' });
  t.equal(await disk.growth?.measure(), SIZE, 'a disk never becomes smaller');
  t.equal(fstatSync(made.image.fd).size, SIZE / 2);
});

t.test('a size that the file system does not allow is NO_SPACE, and the disk stays as it is', async (t) => {
  const disk = frontDisk(await openAio(await imageOf(t)), writable);
  await t.rejects(async () => disk.growth?.grow(Number.MAX_SAFE_INTEGER), {
    code: 'NO_SPACE',
    errno: E.ENOSPC,
    operation: 'grow',
  });
  t.equal(disk.size, SIZE);
  await disk.growth?.grow(SIZE + 1);
  t.equal(disk.size, SIZE + 1, 'a later call works');
});

t.test('growth is guarded: errors say the operation, and a closed disk does not grow', async (t) => {
  const growth = {
    measure: async () => 1,
    grow: async (): Promise<void> => {
      throw Object.assign(new Error('full'), { errno: -E.ENOSPC });
    },
  };
  const disk = frontDisk({ ...bufferDisk(Buffer.alloc(10)), growth }, writable);
  const error = await disk.growth?.grow(20).catch((reason: unknown) => reason);
  t.ok(error instanceof FusetapError);
  t.match(error, { code: 'NO_SPACE', operation: 'grow', errno: E.ENOSPC });
  await disk.close();
  await t.rejects(async () => disk.growth?.measure(), { code: 'FAILED', errno: E.EBADF });
});
