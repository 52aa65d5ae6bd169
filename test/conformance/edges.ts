/** The end of a disk, empty requests, invalid arguments, and read-only disks. */
import assert from 'node:assert/strict';
import { constants } from 'node:os';
import type { Disk } from '../../drivers/disk.js';
import { checkAll, makeModel } from './model.js';
import { patternBytes } from './pattern.js';
import { assertSameBytes, failsWith, readGuarded, withDisk } from './session.js';
import { type SuiteOptions, unlessWritten } from './suite.js';

const { errno: E } = constants;
const SIZE = 5000;
const PIECES = [{ offset: 0, length: SIZE, seed: 1 }];

export function edgeTests(options: SuiteOptions): void {
  endTests(options);
  emptyTests(options);
  argumentTests(options);
  readOnlyTests(options);
}

function endTests({ name, test, factory, abilities }: SuiteOptions): void {
  test.test(`${name}: reads stop at the end of the disk`, { skip: false }, () =>
    withDisk(factory, { size: SIZE, pieces: PIECES }, async ({ disk }) => {
      const tail = await readGuarded(disk, SIZE - 10, 4096);
      assertSameBytes(tail, patternBytes(SIZE - 10, 10, 1), SIZE - 10, 'tail');
      for (const offset of [SIZE, SIZE + 1, 2 ** 32 + 5, Number.MAX_SAFE_INTEGER]) {
        assert.equal((await readGuarded(disk, offset, 100)).length, 0, `read at ${offset}`);
      }
    }),
  );

  test.test(
    `${name}: a write across the end is shortened, and the size does not change`,
    { skip: unlessWritten(abilities) },
    () =>
      withDisk(factory, { size: SIZE, pieces: PIECES }, async (session) => {
        const model = makeModel(SIZE, PIECES);
        const bytes = patternBytes(SIZE - 10, 600, 2);
        assert.equal(await session.disk.write(bytes, SIZE - 10), 10);
        bytes.copy(model, SIZE - 10);
        await checkAll(session, model);
        await session.reopen();
        await checkAll(session, model);
      }),
  );

  test.test(
    `${name}: a write at or beyond the end is ENOSPC and changes nothing`,
    { skip: unlessWritten(abilities) },
    () =>
      withDisk(factory, { size: SIZE, pieces: PIECES }, async (session) => {
        for (const offset of [SIZE, SIZE + 1, 2 ** 32 + 5, Number.MAX_SAFE_INTEGER]) {
          await assert.rejects(session.disk.write(Buffer.alloc(10), offset), failsWith('NO_SPACE', E.ENOSPC));
        }
        await session.reopen();
        await checkAll(session, makeModel(SIZE, PIECES));
      }),
  );

  test.test(`${name}: zeroing is clamped to the end`, { skip: unlessWritten(abilities) }, () =>
    withDisk(factory, { size: SIZE, pieces: PIECES }, async (session) => {
      const model = makeModel(SIZE, PIECES);
      await session.disk.zero(SIZE, 100, { punch: true });
      await session.disk.zero(SIZE + 5, Number.MAX_SAFE_INTEGER);
      await checkAll(session, model);
      await session.disk.zero(4500, Number.MAX_SAFE_INTEGER);
      model.fill(0, 4500);
      await session.reopen();
      await checkAll(session, model);
    }),
  );
}

function emptyTests({ name, test, factory, abilities }: SuiteOptions): void {
  test.test(`${name}: empty requests do nothing, at any offset`, { skip: unlessWritten(abilities) }, () =>
    withDisk(factory, { size: SIZE, pieces: PIECES }, async (session) => {
      const { disk } = session;
      for (const offset of [0, 7, SIZE, SIZE + 7]) {
        assert.equal(await disk.read(Buffer.alloc(0), offset), 0);
        assert.equal(await disk.write(Buffer.alloc(0), offset, { durable: true }), 0);
        await disk.zero(offset, 0, { punch: true, durable: true });
        assert.deepEqual(await disk.extents(offset, 0), []);
      }
      await checkAll(session, makeModel(SIZE, PIECES));
    }),
  );
}

function argumentTests({ name, test, factory }: SuiteOptions): void {
  test.test(`${name}: invalid arguments are refused`, { skip: false }, () =>
    withDisk(factory, { size: SIZE, pieces: PIECES }, async (session) => {
      const { disk } = session;
      const buffer = Buffer.alloc(10);
      for (const bad of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
        await assert.rejects(disk.read(buffer, bad), RangeError);
        await assert.rejects(disk.write(buffer, bad), RangeError);
        await assert.rejects(disk.zero(bad, 1), RangeError);
        await assert.rejects(disk.zero(0, bad), RangeError);
        await assert.rejects(disk.extents(bad, 1), RangeError);
        await assert.rejects(disk.extents(0, bad), RangeError);
      }
      for (const bad of ['text', undefined, new Uint16Array(4), new ArrayBuffer(4)]) {
        await assert.rejects(disk.read(bad as unknown as Uint8Array, 0), TypeError);
        await assert.rejects(disk.write(bad as unknown as Uint8Array, 0), TypeError);
        await assert.rejects(disk.zero(bad as unknown as number, 1), TypeError);
      }
      await checkAll(session, makeModel(SIZE, PIECES));
    }),
  );
}

function readOnlyTests({ name, test, factory, abilities }: SuiteOptions): void {
  test.test(`${name}: a read-only disk can be read and never written`, { skip: false }, () =>
    withDisk(factory, { size: SIZE, pieces: PIECES, readOnly: true }, async (session) => {
      const { disk } = session;
      assert.equal(disk.readOnly, true);
      assert.notEqual(
        disk.segments?.some((segment) => !segment.readOnly),
        true,
        'its segments are read-only too',
      );
      assert.notEqual(disk.map?.readOnly, false, 'its map is read-only too');
      for (const refused of writingCalls(disk)) await assert.rejects(refused, failsWith('DENIED', E.EROFS));
      await disk.flush();
      await checkAll(session, makeModel(SIZE, PIECES));
    }),
  );

  test.test(`${name}: a writable disk is not marked read-only`, { skip: unlessWritten(abilities) }, () =>
    withDisk(factory, { size: SIZE }, async ({ disk }) => {
      assert.equal(disk.readOnly, false);
      assert.notEqual(
        disk.segments?.every(({ readOnly }) => readOnly),
        true,
      );
      assert.notEqual(disk.map?.readOnly, true);
    }),
  );
}

function writingCalls(disk: Disk): Promise<unknown>[] {
  const calls = [
    disk.write(Buffer.alloc(10), 0),
    disk.write(Buffer.alloc(10), SIZE),
    disk.write(Buffer.alloc(0), 0),
    disk.zero(0, 10),
    disk.zero(0, 10, { punch: true }),
  ];
  // they are awaited one after another, so a later one may reject before it is awaited: that is no error
  for (const call of calls) call.catch(() => {});
  return calls;
}
