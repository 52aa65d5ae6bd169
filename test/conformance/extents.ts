/** Holes: where a disk reports them, and the effect of zeroing and punching. */
import assert from 'node:assert/strict';
import type { Extent } from '../../drivers/driver.js';
import { checkAll, checkNormalised, makeModel } from './model.js';
import { withDisk } from './session.js';
import { type SuiteOptions, unlessWritten } from './suite.js';

const MIB = 1 << 20;
const SIZE = 4 * MIB + 1;
const PIECES = [
  { offset: MIB, length: MIB, seed: 3 },
  { offset: SIZE - 1, length: 1, seed: 4 },
];

export function extentTests(options: SuiteOptions): void {
  const { name, test, factory, abilities } = options;
  const skip = abilities.holes ? false : 'reports no holes';

  test.test(`${name}: extents report the holes of a sparse disk`, { skip }, () =>
    withDisk(factory, { size: SIZE, pieces: PIECES }, async ({ disk }) => {
      const extents = await disk.extents(0, Number.MAX_SAFE_INTEGER);
      checkNormalised(extents, 0, SIZE);
      assert.ok(isHole(extents, 0, MIB), 'the start is a hole');
      assert.ok(isHole(extents, 2 * MIB, SIZE - 4096), 'the range between the pieces is a hole');
    }),
  );

  test.test(`${name}: punching makes a hole`, { skip: skip || unlessWritten(abilities) }, () =>
    withDisk(factory, { size: SIZE, pieces: [{ offset: 0, length: SIZE, seed: 5 }] }, async ({ disk }) => {
      await disk.zero(MIB, 2 * MIB, { punch: true, durable: true });
      assert.ok(isHole(await disk.extents(0, SIZE), MIB, 3 * MIB));
    }),
  );

  for (const punch of [true, false]) {
    test.test(
      `${name}: ${punch ? 'punched' : 'zeroed'} ranges read as zeros, byte for byte`,
      { skip: unlessWritten(abilities) },
      () =>
        withDisk(factory, { size: SIZE, pieces: PIECES }, async (session) => {
          const model = makeModel(SIZE, PIECES);
          await session.disk.zero(MIB + 1, 3 * 4096, { punch });
          await session.disk.zero(2 * MIB - 513, 2 * MIB + 513, { punch });
          model.fill(0, MIB + 1, MIB + 1 + 3 * 4096).fill(0, 2 * MIB - 513, SIZE - 1);
          await session.reopen();
          await checkAll(session, model);
        }),
    );
  }
}

function isHole(extents: Extent[], from: number, to: number): boolean {
  return extents.some(({ offset, length, hole }) => hole && offset <= from && offset + length >= to);
}
