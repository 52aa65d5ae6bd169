/** Where disks of all kinds say that their bytes are, and how that is told part by part. */
import { closeSync, ftruncateSync, writeSync } from 'node:fs';
import t, { type Test } from 'tap';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import type { Place, RawDisk } from '../../../drivers/driver.js';
import { makeFilter } from '../../../drivers/filters/index.js';
import { narrow } from '../../../drivers/filters/narrow.js';
import { allExtents, type MapExtent, tellExtents } from '../../../drivers/map/map-extents.js';
import { joinDisks } from '../../../drivers/segments/join-disks.js';
import { segmentsDisk } from '../../../drivers/segments/segments.js';
import { layoutOf } from '../../../drivers/snapshot/layout.js';
import { memoryCalls } from '../../../drivers/snapshot/memory-calls.js';
import { snapshotDisk } from '../../../drivers/snapshot/snapshot-disk.js';
import { memfdCreate } from '../../../system/libc.js';
import { bufferDisk } from '../../conformance/buffer-disk.js';

const PAGE = 4096;

/** A disk in a file with a hole: data, a hole, data, of 4 pages each; the disk begins at byte `start` of the file. */
function inFile(t: Test, start = 0): { raw: RawDisk; fd: number } {
  const fd = memfdCreate('places');
  t.teardown(() => closeSync(fd));
  ftruncateSync(fd, start + 12 * PAGE);
  for (const page of [0, 8]) writeSync(fd, Buffer.alloc(4 * PAGE, 'a'), 0, 4 * PAGE, start + page * PAGE);
  const segment = { fd, start, size: 12 * PAGE, kind: 'file', readOnly: true, durable: false, offset: 0 } as const;
  return { raw: segmentsDisk([segment], async () => {}), fd };
}

const front = (raw: RawDisk): Disk => frontDisk(raw, { readOnly: true });

async function extentsOf(raw: RawDisk) {
  const disk = front(raw);
  const all: object[] = [];
  for (let offset: number | null = 0; offset !== null; ) {
    const { extents, next }: Awaited<ReturnType<typeof tellExtents>> = await tellExtents(
      disk,
      offset,
      disk.size - offset,
    );
    for (const { start, length, depth, zero, offset: at, fd } of extents) {
      all.push({ from: start / PAGE, pages: length / PAGE, depth, zero, at: at === null ? null : at / PAGE, fd });
    }
    offset = next;
  }
  return all;
}

t.test('a file: its holes, and where the disk is in it', async (t) => {
  const { raw, fd } = inFile(t, PAGE);
  t.same(await extentsOf(raw), [
    { from: 0, pages: 4, depth: 0, zero: false, at: 1, fd },
    { from: 4, pages: 4, depth: 0, zero: true, at: 5, fd },
    { from: 8, pages: 4, depth: 0, zero: false, at: 9, fd },
  ]);
  t.same(await front(raw).places.locate(PAGE, 6 * PAGE), [
    { offset: PAGE, length: 6 * PAGE, state: 'data', file: 0, place: PAGE, depth: 0 },
  ]);
});

t.test('a part of a disk, through filters', async (t) => {
  const { raw, fd } = inFile(t, PAGE);
  const slow = makeFilter({ name: 'delay', value: '0' })(raw);
  for (const disk of [narrow(raw, 2 * PAGE, 4 * PAGE), narrow(slow, 2 * PAGE, 4 * PAGE)]) {
    t.same(await extentsOf(disk), [
      { from: 0, pages: 2, depth: 0, zero: false, at: 3, fd },
      { from: 2, pages: 2, depth: 0, zero: true, at: 5, fd },
    ]);
  }
});

t.test('a disk that tells only its holes, and one that tells nothing', async (t) => {
  const bytes = Buffer.alloc(8 * PAGE, 1);
  const nothing = { depth: 0, at: null, fd: null };
  t.same(await extentsOf(bufferDisk(bytes)), [{ from: 0, pages: 8, zero: false, ...nothing }]);
  const extents = async (offset: number, length: number) => [
    { offset: 0, length: 2 * PAGE, hole: false },
    { offset: 2 * PAGE, length: offset + length, hole: true },
  ];
  const holey = { ...bufferDisk(bytes), extents };
  t.same(await extentsOf(holey), [
    { from: 0, pages: 2, zero: false, ...nothing },
    { from: 2, pages: 6, zero: true, ...nothing },
  ]);
  t.same(await front(holey).places.locate(0, 5), [
    { offset: 0, length: 5, state: 'unknown', file: null, place: 0, depth: 0 },
  ]);
});

t.test('disks one after the other, some of which are not in files', async (t) => {
  const [one, two] = [inFile(t), inFile(t, PAGE)];
  const parts = [
    { disk: front(one.raw), start: 3 * PAGE, size: 2 * PAGE },
    { disk: front(bufferDisk(Buffer.alloc(2 * PAGE, 1))), start: 0, size: 2 * PAGE },
    { disk: null, start: 0, size: PAGE },
    { disk: front(two.raw), start: 8 * PAGE, size: PAGE },
  ];
  const joined = joinDisks(parts);
  t.equal(joined.segments, undefined);
  t.same(await extentsOf(joined), [
    { from: 0, pages: 1, depth: 0, zero: false, at: 3, fd: one.fd },
    { from: 1, pages: 1, depth: 0, zero: true, at: 4, fd: one.fd },
    { from: 2, pages: 2, depth: 0, zero: false, at: null, fd: null },
    { from: 4, pages: 1, depth: 0, zero: true, at: null, fd: null },
    { from: 5, pages: 1, depth: 0, zero: false, at: 9, fd: two.fd },
  ]);
  t.same(
    (await front(joined).extents(0, joined.size)).map(({ offset, length, hole }) => [
      offset / PAGE,
      length / PAGE,
      hole,
    ]),
    [
      [0, 1, false],
      [1, 1, true],
      [2, 2, false],
      [4, 1, true],
      [5, 1, false],
    ],
  );
});

t.test('a snapshot: what is in memory is in no file, the base is one down', async (t) => {
  const { raw, fd } = inFile(t);
  const memoryFd = memfdCreate('snapshot');
  t.teardown(() => closeSync(memoryFd));
  const layout = layoutOf(raw.size);
  ftruncateSync(memoryFd, layout.totalBytes);
  const open = (base: RawDisk) =>
    snapshotDisk({ base: front(base), layout, calls: memoryCalls(memoryFd), memoryFd, readOnly: false });
  const disk = open(raw);
  await disk.activate?.();
  await disk.write?.(Buffer.alloc(100, 'b'), 2 * PAGE + 7, { durable: false });
  await disk.zero?.(9 * PAGE, PAGE, { punch: true, durable: false });
  t.same(await extentsOf(disk), [
    { from: 0, pages: 2, depth: 1, zero: false, at: 0, fd },
    { from: 2, pages: 1, depth: 0, zero: false, at: null, fd: null },
    { from: 3, pages: 1, depth: 1, zero: false, at: 3, fd },
    { from: 4, pages: 4, depth: 1, zero: true, at: 4, fd },
    { from: 8, pages: 1, depth: 1, zero: false, at: 8, fd },
    { from: 9, pages: 1, depth: 0, zero: true, at: null, fd: null },
    { from: 10, pages: 2, depth: 1, zero: false, at: 10, fd },
  ]);
  const upper = snapshotDisk({
    ...{ base: front(disk), layout, calls: memoryCalls(memfdOf(t, layout.totalBytes)), memoryFd, readOnly: true },
  });
  t.equal(Math.max(...(await front(upper).places.locate(0, PAGE)).map(({ depth }) => depth)), 2);
});

function memfdOf(t: Test, size: number): number {
  const fd = memfdCreate('empty');
  t.teardown(() => closeSync(fd));
  ftruncateSync(fd, size);
  return fd;
}

t.test('many extents are told in parts, and joined again', async (t) => {
  const [count, length] = [5000, 512];
  const place = (index: number): Place => {
    const range = { offset: index * length, length, depth: 0 };
    // runs of three go on, over the ends of parts too
    return index % 4 === 3
      ? { ...range, state: 'zeros', file: null, place: 0 }
      : { ...range, state: 'data', file: 0, place: index * length };
  };
  let asked = 0;
  const raw: RawDisk = {
    ...bufferDisk(Buffer.alloc(count * length)),
    places: {
      files: [{ fd: 3, kind: 'file', readOnly: true, durable: false, delta: 1000 }],
      locate: async (offset) => {
        asked += 1;
        return Array.from({ length: Math.min(7, count - offset / length) }, (_, i) => place(offset / length + i));
      },
    },
  };
  const disk = front(raw);
  let parts = 0;
  const extents: MapExtent[] = [];
  for await (const extent of allExtents(async (offset) => {
    parts += 1;
    const told = await tellExtents(disk, offset, disk.size - offset);
    t.ok(told.extents.length <= 1030, `${told.extents.length} at a time`);
    return {
      ...told,
      extents: told.extents.map(({ fd, ...extent }) => ({ ...extent, filename: fd === 3 ? '/a' : null })),
    };
  })) {
    extents.push(extent);
  }
  t.equal(extents.length, count / 2);
  t.ok(parts > 2 && asked === Math.ceil(count / 7), `${parts} parts, asked ${asked} times`);
  t.same(extents[2], {
    ...{ start: 2048, length: 1536, depth: 0, present: true, zero: false, data: true, compressed: false },
    ...{ offset: 3048, filename: '/a' },
  });
  const wrong = allExtents(async (offset) => ({ extents: [], next: offset }));
  await t.rejects(wrong.next(), RangeError, 'a bus that does not go on');
});
