/** Disks whose offsets need more than 32, and more than 41, bits: a truncated offset hits a place that is checked. */
import assert from 'node:assert/strict';
import { checkNormalised } from './model.js';
import { patternBytes } from './pattern.js';
import { assertSameBytes, readGuarded, withDisk } from './session.js';
import { type SuiteOptions, unlessWritten } from './suite.js';

const SIZES = [2 ** 32 + 1301, 2 ** 41 + 2 ** 32 + 1301];

export function largeTests({ name, test, factory, abilities }: SuiteOptions): void {
  for (const size of SIZES) {
    const skip = size > abilities.maxSizeBytes ? `disks of at most ${abilities.maxSizeBytes} bytes` : false;
    const pieces = placesOf(size).map((offset) => ({ offset, length: Math.min(1300, size - offset), seed: 11 }));

    test.test(`${name}: a sparse disk of ${size} bytes`, { skip }, () =>
      withDisk(factory, { size, pieces }, async ({ disk }) => {
        assert.equal(disk.size, size);
        for (const { offset, length } of pieces) {
          assertSameBytes(await readGuarded(disk, offset, length), patternBytes(offset, length, 11), offset, 'piece');
          const after = await readGuarded(disk, offset + length, 100);
          assert.ok(
            after.every((byte) => byte === 0),
            `zeros follow ${offset}`,
          );
        }
        assert.equal((await readGuarded(disk, size, 1)).length, 0);
        if (abilities.holes) checkNormalised(await disk.extents(0, size), 0, size);
      }),
    );

    test.test(
      `${name}: writing and punching in a disk of ${size} bytes`,
      { skip: skip || unlessWritten(abilities) },
      () =>
        withDisk(factory, { size }, async (session) => {
          for (const offset of placesOf(size)) await session.disk.write(patternBytes(offset, 1301, 12), offset);
          for (const offset of placesOf(size)) await session.disk.zero(offset + 100, 600, { punch: true });
          await session.reopen();
          for (const offset of placesOf(size)) {
            const length = Math.min(1301, size - offset);
            const expected = patternBytes(offset, length, 12).fill(0, 100, 700);
            assertSameBytes(await readGuarded(session.disk, offset, length), expected, offset, 'written and punched');
          }
        }),
    );
  }
}

/** Offsets far apart; none is equal to the lower 31, 32 or 41 bits of another. */
function placesOf(size: number): number[] {
  const places = [5000, 2 ** 31 - 650, 2 ** 32 - 20_000, 2 ** 40 - 650, 2 ** 41 + 30_000, size - 1300];
  return places.filter((offset) => offset < size);
}
