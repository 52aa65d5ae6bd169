/** Random requests that overlap, also with threads that use the map, against a buffer. */
import assert from 'node:assert/strict';
import { closeSync, fstatSync, ftruncateSync } from 'node:fs';
import { constants } from 'node:os';
import fc from 'fast-check';
import t from 'tap';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import type { Change, MapView, RawDisk } from '../../../drivers/driver.js';
import { FusetapError } from '../../../drivers/errors.js';
import { DATA, ZEROS } from '../../../drivers/map/table.js';
import snapshot from '../../../drivers/snapshot/index.js';
import { layoutOf } from '../../../drivers/snapshot/layout.js';
import { memoryCalls } from '../../../drivers/snapshot/memory-calls.js';
import { snapshotDisk } from '../../../drivers/snapshot/snapshot-disk.js';
import { memfdCreate } from '../../../system/libc.js';
import { byMap } from '../../conformance/by-map.js';
import { asDisk, makeImage } from '../../conformance/driver-factory.js';
import { makeModel } from '../../conformance/model.js';
import { patternBytes } from '../../conformance/pattern.js';
import { type Base, contextOver, inBuffer, inFile, inSegments, type MakeBase, prepareOver } from './bases.js';

const SLICE = 512 * 4096;
const SIZE = 2 * SLICE + 3 * 4096 + 1300;
const PIECES = [{ offset: 0, length: SIZE, seed: 1 }];
const SECTOR = 512;
const BASE_BYTES = makeModel(SIZE, PIECES);
t.setTimeout(240_000);

interface Request {
  readonly kind: 'read' | 'write' | 'zero' | 'reopen';
  readonly offset: number;
  readonly length: number;
  readonly seed: number;
}

const places = fc.oneof(
  fc.nat(SIZE - 1),
  fc.constantFrom(0, 4096, 8192, SLICE - 4096, SLICE, SIZE - 1300, SIZE - 1),
  fc.nat(40).map((sector) => sector * SECTOR),
);
const lengths = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 1, max: 20_000 }) },
  { weight: 4, arbitrary: fc.constantFrom(1, 512, 4096, 8192, 65_536) },
  { weight: 1, arbitrary: fc.constantFrom(SLICE, 2 * SLICE, SIZE) },
);
const kinds = fc.constantFrom<Request['kind']>('read', 'read', 'write', 'write', 'write', 'zero', 'zero', 'reopen');
const requests: fc.Arbitrary<Request> = fc
  .record({ kind: kinds, offset: places, length: lengths, seed: fc.integer({ min: 2, max: 999 }) })
  .map((request) => ({ ...request, length: Math.min(request.length, SIZE - request.offset) }));

/** nothing changes a base, so all runs share it */
const bases = new Map<MakeBase, Promise<Base>>();

function baseOf(makeBase: MakeBase): Promise<Base> {
  const base = bases.get(makeBase) ?? makeBase({ size: SIZE, pieces: PIECES });
  bases.set(makeBase, base);
  return base;
}

t.teardown(async () => {
  for (const base of bases.values()) await (await base).dispose();
});

/** Runs a script on a snapshot of 'SIZE' bytes over a base of the pattern 1. */
async function withSnapshot(
  { makeBase, wrap, mapBytes }: { makeBase: MakeBase; wrap: (raw: RawDisk) => RawDisk; mapBytes?: number | undefined },
  body: (open: () => Promise<Disk>, memoryFd: number) => Promise<void>,
): Promise<void> {
  const base = await baseOf(makeBase);
  const fd = memfdCreate('model');
  try {
    const state = await prepareOver(base.disk, fd);
    await body(async () => {
      const parts = { base: base.disk, memoryFd: fd, readOnly: false, layout: layoutOf(state.sizeBytes) };
      const raw = snapshotDisk({ ...parts, calls: memoryCalls(fd), ...(mapBytes !== undefined && { mapBytes }) });
      await raw.activate?.();
      return frontDisk(wrap(raw), { readOnly: false });
    }, fd);
    base.check();
  } finally {
    closeSync(fd);
  }
}

async function changesOf(disk: Disk): Promise<Change[]> {
  const all: Change[] = [];
  for (let at = 0; at < disk.size; ) {
    const some = await disk.changes(at, disk.size - at);
    const last = some.at(-1);
    if (last === undefined) break;
    all.push(...some);
    at = last.offset + last.length;
  }
  return all;
}

/** Where there is no change, the disk has the bytes of the base; where zeros are told, it has zeros. */
async function checkChanges(disk: Disk, model: Buffer): Promise<void> {
  const merged = Buffer.from(BASE_BYTES);
  let end = 0;
  for (const { offset, length, kind } of await changesOf(disk)) {
    assert.ok(offset >= end && length > 0 && offset + length <= SIZE, 'in order, inside the disk');
    end = offset + length;
    if (kind === 'zeros') merged.fill(0, offset, end);
    else model.copy(merged, offset, offset, end);
  }
  assert.ok(merged.equals(model), 'the base with the changes is the disk');
}

for (const [over, makeBase] of [
  ['a file', inFile],
  ['segments', inSegments(7)],
  ['a disk that threads cannot serve', inBuffer],
] as const) {
  for (const [by, wrap] of [
    ['the driver', (raw: RawDisk) => raw],
    ['the map', (raw: RawDisk) => byMap(raw)],
    ['a map with memory for one slice', (raw: RawDisk) => byMap(raw)],
  ] as const) {
    const mapBytes = by.includes('one slice') ? 4096 : undefined;
    t.test(`one request after the other, over ${over}, by ${by}`, async () => {
      const property = fc.asyncProperty(fc.array(requests, { minLength: 5, maxLength: 40 }), async (script) => {
        await withSnapshot({ makeBase, wrap, mapBytes }, async (open) => {
          const model = Buffer.from(BASE_BYTES);
          let disk = await open();
          for (const { kind, offset, length, seed } of script) {
            const bytes = Buffer.alloc(length);
            if (kind === 'reopen') disk = await open();
            if (kind === 'read') {
              await disk.read(bytes, offset);
              assert.ok(bytes.equals(model.subarray(offset, offset + length)), `read at ${offset} of ${length}`);
            }
            if (kind === 'write') {
              patternBytes(offset, length, seed).copy(model, offset);
              await disk.write(patternBytes(offset, length, seed), offset);
            }
            if (kind === 'zero') {
              await disk.zero(offset, length, { punch: seed % 2 === 0 });
              model.fill(0, offset, offset + length);
            }
          }
          const all = Buffer.alloc(SIZE);
          await disk.read(all, 0);
          assert.ok(all.equals(model));
          await checkChanges(disk, model);
          for (const { offset, length, hole } of await disk.extents(0, SIZE)) {
            if (hole) assert.ok(model.subarray(offset, offset + length).every((byte) => byte === 0));
          }
        });
      });
      await fc.assert(property, { numRuns: 12 });
    });

    t.test(`requests that overlap, over ${over}, by ${by}`, async () => {
      const property = fc.asyncProperty(fc.array(requests, { minLength: 10, maxLength: 60 }), async (script) => {
        await withSnapshot({ makeBase, wrap, mapBytes }, async (open) => {
          const disk = await open();
          // each sector has the bytes of the base, zeros, or those of one of the writes
          const possible = new Map<number, Buffer[]>();
          const model = Buffer.from(BASE_BYTES);
          await Promise.all(
            script.map(async ({ kind, offset, length, seed }) => {
              if (kind === 'read' || kind === 'reopen') return void (await disk.read(Buffer.alloc(length), offset));
              const bytes = kind === 'write' ? patternBytes(offset, length, seed) : Buffer.alloc(length);
              noteSectors(possible, bytes, offset);
              if (kind === 'write') await disk.write(bytes, offset);
              else await disk.zero(offset, length);
            }),
          );
          const all = Buffer.alloc(SIZE);
          await disk.read(all, 0);
          checkSectors(all, model, possible);
          const again = Buffer.alloc(SIZE);
          await (await open()).read(again, 0);
          assert.ok(again.equals(all), 'the next server has the same bytes');
        });
      });
      await fc.assert(property, { numRuns: 12 });
    });
  }
}

/** Notes what a change gives to sectors that it covers wholly; null stands for sectors of which it covers a part. */
function noteSectors(possible: Map<number, Buffer[]>, bytes: Buffer, offset: number): void {
  const end = offset + bytes.length;
  for (let sector = Math.floor(offset / SECTOR); sector * SECTOR < end; sector++) {
    const from = sector * SECTOR - offset;
    const isWhole = from >= 0 && Math.min((sector + 1) * SECTOR, SIZE) <= end;
    const known = possible.get(sector) ?? [];
    known.push(isWhole ? bytes.subarray(from, from + SECTOR) : Buffer.alloc(0));
    possible.set(sector, known);
  }
}

function checkSectors(all: Buffer, base: Buffer, possible: ReadonlyMap<number, Buffer[]>): void {
  for (let sector = 0; sector * SECTOR < SIZE; sector++) {
    const given = possible.get(sector);
    const is = all.subarray(sector * SECTOR, (sector + 1) * SECTOR);
    if (given === undefined) assert.ok(is.equals(base.subarray(sector * SECTOR, (sector + 1) * SECTOR)), 'untouched');
    // parts of sectors are checked by the tests of the suite
    else if (given.every(({ length }) => length > 0))
      assert.ok(
        given.some((bytes) => bytes.equals(is)),
        `${sector}`,
      );
  }
}

t.test('a discard that fails half way: the map says what the driver says', async (t) => {
  const base = await inFile({ size: SIZE, pieces: PIECES });
  const memoryFd = memfdCreate('failing');
  t.teardown(async () => {
    closeSync(memoryFd);
    await base.dispose();
  });
  await prepareOver(base.disk, memoryFd);
  const calls = memoryCalls(memoryFd);
  let isFailing = false;
  const punch = async (place: number, length: number): Promise<void> => {
    if (isFailing) throw Object.assign(new Error('no punch'), { errno: 5 });
    await calls.punch(place, length);
  };
  let notes = Number.POSITIVE_INFINITY;
  const note = (bytes: Uint8Array, place: number): void => {
    if (notes-- <= 0) throw Object.assign(new Error('no note'), { errno: 5 });
    calls.note(bytes, place);
  };
  const failing = { ...calls, punch, note };
  const parts = { base: base.disk, memoryFd, readOnly: false, layout: layoutOf(SIZE), calls: failing };
  const raw = snapshotDisk(parts);
  await raw.activate?.();
  const [byDriver, byMaps] = [raw, byMap(raw)];
  await raw.write?.(patternBytes(0, 20_000, 2), 8192, { durable: false });
  // threads ask for the slices
  for (const disk of [byDriver, byMaps]) await disk.read(Buffer.alloc(SIZE), 0);
  isFailing = true;
  for (const [offset, length, notesLeft] of [
    [0, SLICE, 9],
    [4096, 8192, 9],
    // the head of the range is zeros, and its whole slice is not
    [SLICE - 4096, SIZE - SLICE + 4096, 1],
  ] as const) {
    notes = notesLeft;
    const zeroing = raw.zero?.(offset, length, { punch: true, durable: false });
    await t.rejects(Promise.resolve(zeroing), { message: /no punch|no note/ });
    const [one, other] = [Buffer.alloc(SIZE), Buffer.alloc(SIZE)];
    // one granule at a time: what is known of it is served by the map, whatever is known of others
    for (let at = 0; at < SIZE; at += 4096) await byMaps.read(one.subarray(at, at + 4096), at);
    await byDriver.read(other, 0);
    t.ok(one.equals(other), `after ${length} bytes at ${offset}`);
  }
});

t.test('the start does not depend on the size', async (t) => {
  const openedMs = async (size: number): Promise<number> => {
    const baseFd = memfdCreate('base');
    ftruncateSync(baseFd, size);
    const disk = await asDisk({ fd: baseFd, path: '', sizeBytes: size, kind: 'file' });
    const memoryFd = memfdCreate('start');
    const state = await prepareOver(disk, memoryFd);
    const begun = performance.now();
    const raw = await snapshot.open(contextOver(disk, memoryFd, state));
    await raw.activate?.();
    const took = performance.now() - begun;
    const end = Buffer.alloc(10);
    await raw.write?.(Buffer.from('end'), size - 3, { durable: false });
    await raw.read(end, size - 10);
    t.equal(end.toString(), '\0\0\0\0\0\0\0end', `${size} bytes`);
    const { byteLength } = (raw.map as MapView).map.table.memory;
    t.ok(byteLength <= size / 2 ** 19 + (17 << 20), `a table of ${byteLength} bytes`);
    t.equal(fstatSync(memoryFd).blocks * 512, 8192, 'a page of data and a page of states');
    closeSync(memoryFd);
    closeSync(baseFd);
    return took;
  };
  const fastest = { small: Number.POSITIVE_INFINITY, large: Number.POSITIVE_INFINITY };
  for (let i = 0; i < 7; i++) {
    fastest.small = Math.min(fastest.small, await openedMs(4096));
    fastest.large = Math.min(fastest.large, await openedMs(10 * 2 ** 30));
  }
  t.ok(fastest.large - fastest.small < 2, `${fastest.large} ms for 10 GiB, ${fastest.small} ms for a page`);
  await openedMs(2 ** 44);
});

t.test('what cannot be a snapshot is refused', async (t) => {
  const base = await inFile({ size: SIZE, pieces: [] });
  const other = await inFile({ size: SIZE - 1, pieces: [] });
  const memoryFd = memfdCreate('refused');
  t.teardown(async () => {
    closeSync(memoryFd);
    await base.dispose();
    await other.dispose();
  });
  t.throws(() => layoutOf(2 ** 47 + 1), { code: 'UNSUPPORTED' });
  const context = contextOver(base.disk, memoryFd, { sizeBytes: SIZE });
  await t.rejects(snapshot.open({ ...context, memory: null }), { code: 'FAILED' });
  await t.rejects(snapshot.open(context), { code: 'FAILED', message: /memory has 0 bytes/ });
  const state = await prepareOver(base.disk, memoryFd);
  await t.rejects(snapshot.open(contextOver(other.disk, memoryFd, state)), { message: /base has \d+ bytes now/ });
  await t.rejects(snapshot.open({ ...context, disks: {} }), { code: 'USAGE' });
  t.throws(() => ftruncateSync(memoryFd, 1), { code: 'EPERM' }, 'the size of the memory is sealed');
});

t.test('a base that has shrunk gives EIO for what it lacks, and what was written is there', async (t) => {
  const made = await makeImage({ size: SIZE, pieces: PIECES, readOnly: false });
  const disk = await asDisk(made.image);
  const memoryFd = memfdCreate('shrunk');
  t.teardown(async () => {
    closeSync(memoryFd);
    await made.dispose();
  });
  const state = await prepareOver(disk, memoryFd);
  const raw = await snapshot.open(contextOver(disk, memoryFd, state));
  const front = frontDisk(byMap(raw), { readOnly: false });
  await front.write(patternBytes(0, 4096, 5), SLICE);
  await made.file.truncate(4096);
  const lost = { code: 'FAILED', errno: constants.errno.EIO };
  await t.rejects(front.read(Buffer.alloc(10), 9000), lost);
  await t.rejects(front.write(Buffer.alloc(10), 9000), lost, 'the rest of the granule is lost');
  await t.rejects(front.read(Buffer.alloc(10), 9000), lost);
  await front.write(Buffer.alloc(4096, 1), 8192);
  const bytes = Buffer.alloc(4096);
  await front.read(bytes, SLICE);
  t.ok(bytes.equals(patternBytes(0, 4096, 5)));
});

t.test('zeros free the memory, and zeros over zeros take none', async (t) => {
  await withSnapshot({ makeBase: inFile, wrap: byMap }, async (open, fd) => {
    const disk = await open();
    const used = (): number => fstatSync(fd).blocks * 512;
    t.equal(used(), 0);
    await disk.write(patternBytes(0, SLICE, 3), 0);
    t.equal(used(), SLICE + 4096, 'the data, and a page of states');
    await disk.zero(0, SIZE, { punch: true });
    t.equal(used(), 4096 + 4096, 'a page of states of granules, which are holes in it, and one of slices');
    await disk.zero(100, SLICE, { punch: true });
    t.ok(used() <= 3 * 4096);
    await disk.read(Buffer.alloc(SIZE), 0);
    t.ok(used() <= 3 * 4096, 'reading takes none');
    t.same(await disk.extents(0, SIZE), [{ offset: 0, length: SIZE, hole: true }]);
    t.same(await disk.changes(0, SIZE), [{ offset: 0, length: SIZE, kind: 'zeros' }]);
  });
});

t.test('a change is told inside the range that was asked for, and in parts if there are many', async (t) => {
  await withSnapshot({ makeBase: inFile, wrap: byMap }, async (open) => {
    const disk = await open();
    t.same(await disk.changes(0, SIZE), []);
    await disk.write(Buffer.alloc(100, 1), 5000);
    t.same(await disk.changes(0, SIZE), [{ offset: 4096, length: 4096, kind: 'data' }]);
    t.same(await disk.changes(5000, 7), [{ offset: 5000, length: 7, kind: 'data' }]);
    t.same(await disk.changes(8192, SIZE), []);
    t.same(await disk.changes(SIZE, 5), []);
    for (let granule = 1; granule < 1024; granule += 2) await disk.write(Buffer.alloc(1, 1), granule * 4096);
    const first = await disk.changes(0, SIZE);
    t.ok(first.length < 512, `${first.length} at first`);
    t.equal((await changesOf(disk)).length, 512);
  });
});

t.test('a new server never tells threads that a changed granule is that of the base, not for a moment', async (t) => {
  const base = await inFile({ size: SIZE, pieces: PIECES });
  const memoryFd = memfdCreate('load');
  t.teardown(async () => {
    closeSync(memoryFd);
    await base.dispose();
  });
  await prepareOver(base.disk, memoryFd);
  const parts = { base: base.disk, memoryFd, readOnly: false, layout: layoutOf(SIZE) };
  const before = frontDisk(snapshotDisk({ ...parts, calls: memoryCalls(memoryFd) }), { readOnly: false });
  await before.write(patternBytes(0, 4096, 2), 5 * 4096);
  await before.zero(SLICE, SLICE);
  await before.write(patternBytes(0, 100, 3), 2 * SLICE + 200);
  await before.close();
  const changed = [5, 512, 700, 1023, 1024];
  let map: MapView['map'] | undefined;
  let looks = 0;
  const check = (): void => {
    for (const granule of map === undefined ? [] : changed) {
      const { state } = map?.entry(granule) ?? {};
      assert.notEqual(state, DATA, `granule ${granule} after ${looks} calls`);
    }
    looks += 1;
  };
  const calls = memoryCalls(memoryFd);
  const look = (...args: Parameters<typeof calls.look>): void => {
    check();
    calls.look(...args);
  };
  const nextData = (place: number): number => {
    check();
    return calls.nextData(place);
  };
  const raw = snapshotDisk({ ...parts, calls: { ...calls, look, nextData } });
  map = raw.map?.map;
  t.ok(map?.table);
  await raw.activate?.();
  check();
  t.ok(looks > 3, `${looks} looks`);
  t.equal(map?.entry(600).state, ZEROS);
});

t.test('at the limit a discard still frees what was written', async (t) => {
  const base = await inFile({ size: SIZE, pieces: PIECES });
  const memoryFd = memfdCreate('limit');
  t.teardown(async () => {
    closeSync(memoryFd);
    await base.dispose();
  });
  await prepareOver(base.disk, memoryFd);
  let isFull = false;
  const mayFill = async (): Promise<void> => {
    if (isFull) throw new FusetapError('NO_SPACE', 'the limit is reached', { errno: constants.errno.ENOSPC });
  };
  const parts = { base: base.disk, memoryFd, readOnly: false, layout: layoutOf(SIZE), calls: memoryCalls(memoryFd) };
  const disk = frontDisk(snapshotDisk({ ...parts, mayFill }), { readOnly: false });
  await disk.write(patternBytes(0, SLICE, 2), 0);
  isFull = true;
  const before = fstatSync(memoryFd).blocks;
  await disk.zero(0, SLICE, { punch: true });
  const bytes = Buffer.alloc(SLICE, 1);
  await disk.read(bytes, 0);
  t.ok(bytes.equals(Buffer.alloc(SLICE)), 'zeros');
  t.ok(fstatSync(memoryFd).blocks * 512 < before * 512 - SLICE / 2, 'the memory is free');
  const again = frontDisk(snapshotDisk({ ...parts, mayFill }), { readOnly: false });
  await again.read(bytes.fill(1), 0);
  t.ok(bytes.equals(Buffer.alloc(SLICE)), 'also for the next server');
});
