/** Concurrent calls: coherence rule 6. */
import assert from 'node:assert/strict';
import { checkAll, makeModel } from './model.js';
import { fillPattern, patternBytes } from './pattern.js';
import { assertSameBytes, withDisk } from './session.js';
import { type SuiteOptions, unlessWritten } from './suite.js';

const SECTOR = 512;
const SECTORS = 600;
const SIZE = SECTORS * SECTOR;
const ROUNDS = 8;
const WRITERS = 8;

export function concurrencyTests({ name, test, factory, abilities }: SuiteOptions): void {
  test.test(`${name}: overlapping writes are never torn inside a sector`, { skip: unlessWritten(abilities) }, () =>
    withDisk(factory, { size: SIZE }, async ({ disk }) => {
      const content = Buffer.alloc(SIZE);
      for (let round = 0; round < ROUNDS; round++) {
        const writes = Array.from({ length: WRITERS }, (_, i) => {
          const first = (i * 13) % 60;
          const bytes = Buffer.alloc((SECTORS - 60) * SECTOR, round * WRITERS + i + 1);
          return i === 3 ? disk.zero(first * SECTOR, bytes.length) : disk.write(bytes, first * SECTOR);
        });
        await Promise.all(writes);
        await disk.read(content, 0);
        assertNotTorn(content);
      }
    }),
  );

  test.test(
    `${name}: concurrent writes to neighbouring bytes of a sector do not undo each other`,
    { skip: unlessWritten(abilities) },
    () =>
      withDisk(factory, { size: 8000 }, async (session) => {
        const model = makeModel(8000, [{ offset: 0, length: 8000, seed: 9 }]);
        const places = Array.from({ length: 80 }, (_, i) => i * 100);
        await Promise.all(places.map((offset) => session.disk.write(patternBytes(offset, 100, 9), offset)));
        await checkAll(session, model);
      }),
  );

  test.test(`${name}: a read after an acknowledged write sees it`, { skip: unlessWritten(abilities) }, () =>
    withDisk(factory, { size: SIZE }, async ({ disk }) => {
      const lane = async (offset: number): Promise<void> => {
        for (let seed = 0; seed < 10; seed++) {
          const bytes = patternBytes(offset, 3000, seed);
          await disk.write(bytes, offset);
          const seen = Buffer.alloc(3000);
          await disk.read(seen, offset);
          assertSameBytes(seen, bytes, offset, `seed ${seed}`);
        }
      };
      await Promise.all([0, 3000, 6000, 9000, 12_000].map(lane));
    }),
  );

  test.test(`${name}: concurrent reads get their own bytes`, { skip: false }, () =>
    withDisk(factory, { size: SIZE, pieces: [{ offset: 0, length: SIZE, seed: 10 }] }, async ({ disk }) => {
      const places = Array.from({ length: 64 }, (_, i) => i * 4321);
      const expected = Buffer.alloc(5000);
      const reads = places.map(async (offset) => {
        const bytes = Buffer.alloc(5000);
        await disk.read(bytes, offset);
        fillPattern(expected, offset, 10);
        assertSameBytes(bytes, expected, offset, 'concurrent read');
      });
      await Promise.all(reads);
    }),
  );
}

/** Checks that each sector has the bytes of only one write. Each write has one value. */
function assertNotTorn(content: Buffer): void {
  for (let sector = 0; sector < SECTORS; sector++) {
    const bytes = content.subarray(sector * SECTOR, (sector + 1) * SECTOR);
    const isWhole = bytes.every((byte) => byte === bytes[0]);
    assert.ok(isWhole, `sector ${sector} is torn`);
  }
}
