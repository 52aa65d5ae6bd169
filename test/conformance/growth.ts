/** A disk that can become larger, for a format above it. */
import assert from 'node:assert/strict';
import { checkAll, makeModel } from './model.js';
import { patternBytes } from './pattern.js';
import { assertSameBytes, readGuarded, type Session, withDisk } from './session.js';
import type { SuiteOptions } from './suite.js';

const SIZE = 5000;
const PIECES = [{ offset: 0, length: SIZE, seed: 1 }];
const LARGER = 3_000_017;

export function growthTests({ name, test, factory, abilities }: SuiteOptions): void {
  // few disks can, so the others do not list these tests as skipped
  if (!abilities.growth) return;

  test.test(`${name}: a disk that grows has zeros behind its old end, and all calls work there`, { skip: false }, () =>
    withDisk(factory, { size: SIZE, pieces: PIECES }, async (session) => {
      const { disk } = session;
      await growthOf(session).grow(LARGER);
      assert.equal(disk.size, LARGER);
      const model = Buffer.concat([makeModel(SIZE, PIECES), Buffer.alloc(LARGER - SIZE)]);
      await checkAll(session, model);
      await assert.rejects(disk.write(Buffer.alloc(1), LARGER), 'the new end is an end');
      const bytes = patternBytes(SIZE - 10, 2_000_000, 2);
      assert.equal(await disk.write(bytes, SIZE - 10), bytes.length);
      bytes.copy(model, SIZE - 10);
      await disk.zero(1_000_000, 500_000, { punch: true });
      model.fill(0, 1_000_000, 1_500_000);
      await disk.flush();
      await checkAll(session, model);
      const extents = await disk.extents(0, LARGER + 1);
      assert.equal(
        extents.reduce((sum, { length }) => sum + length, 0),
        LARGER,
        'the extents describe all of it',
      );
    }),
  );

  test.test(`${name}: grow never makes a disk smaller, whatever else grows it at the time`, { skip: false }, () =>
    withDisk(factory, { size: SIZE, pieces: PIECES }, async (session) => {
      const growth = growthOf(session);
      const sizes = [70_000, 1, 300_000, SIZE, 150_000, 0];
      await Promise.all(sizes.map((size) => growth.grow(size)));
      assert.equal(session.disk.size, 300_000);
      await session.disk.write(patternBytes(299_000, 1000, 3), 299_000);
      await Promise.all([growth.grow(200_000), growth.measure(), growth.grow(300_001)]);
      assertSameBytes(await readGuarded(session.disk, 299_000, 1000), patternBytes(299_000, 1000, 3), 299_000, 'end');
      for (const bad of [-1, 0.5, Number.NaN, 2 ** 53]) await assert.rejects(growth.grow(bad), RangeError);
    }),
  );

  test.test(`${name}: a disk that is opened again takes over what it has grown to`, { skip: false }, () =>
    withDisk(factory, { size: SIZE, pieces: PIECES }, async (session) => {
      await growthOf(session).grow(LARGER);
      await session.disk.write(patternBytes(LARGER - 100, 100, 4), LARGER - 100);
      await session.reopen();
      assert.equal(await growthOf(session).measure(), LARGER);
      assert.equal(session.disk.size, LARGER);
      const tail = await readGuarded(session.disk, LARGER - 100, 4096);
      assertSameBytes(tail, patternBytes(LARGER - 100, 100, 4), LARGER - 100, 'tail');
    }),
  );

  test.test(`${name}: a read-only disk does not grow`, { skip: false }, () =>
    withDisk(factory, { size: SIZE, pieces: PIECES, readOnly: true }, async ({ disk }) => {
      assert.equal(disk.growth, undefined);
    }),
  );
}

function growthOf({ disk }: Session): NonNullable<Session['disk']['growth']> {
  assert.ok(disk.growth !== undefined, 'the disk has growth');
  return disk.growth;
}
