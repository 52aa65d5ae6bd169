/** Hostile superblocks: no bytes make a reader throw, read outside of the disk, read without end, or give a long name. */
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { readSuperblock, type Superblock } from '../../../drivers/superblocks/index.js';
import { whyNot } from '../../e2e/fixtures.js';
import { make, RECIPES, read } from './images.js';

const TINY = 1440 << 10;

function check(t: Test, found: Superblock | null): void {
  if (found === null) return;
  if ((found.label?.length ?? 1) > 255 || found.label?.length === 0) t.fail(`a label of ${found.label?.length} bytes`);
  if ((found.uuid?.length ?? 1) > 40 || found.uuid === '') t.fail(`a UUID of ${found.uuid?.length} characters`);
}

t.test('random bytes', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 4096 }), fc.nat(3), async (bytes, shape) => {
      const disk = Buffer.alloc([bytes.length, 4096, TINY, TINY + 4096][shape] as number);
      disk.set(bytes.subarray(0, disk.length));
      check(t, await read(disk));
    }),
    { numRuns: 300 },
  );
  t.pass();
});

for (const recipe of RECIPES.filter(({ megabytes }) => megabytes <= 128)) {
  t.test(`${recipe.name}, changed`, { skip: whyNot(recipe.program, 'blkid') }, async (t) => {
    const { bytes } = make(recipe);
    const places = await placesRead(bytes);
    const change = fc.record({
      place: fc.nat(),
      within: fc.nat(),
      bytes: fc.uint8Array({ minLength: 1, maxLength: 8 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 6 }), fc.nat(20), async (changes, cut) => {
        const undo: [number, Buffer][] = [];
        for (const { place, within, bytes: fresh } of changes) {
          const [at, length] = places[place % places.length] as [number, number];
          const from = Math.min(at + (within % length), bytes.length - 8);
          undo.unshift([from, Buffer.from(bytes.subarray(from, from + 8))]);
          bytes.set(fresh, from);
        }
        // some are cut, too
        const end = cut === 0 ? Math.max(1, (changes[0]?.within ?? 0) % bytes.length) : bytes.length;
        check(t, await read(bytes.subarray(0, end)));
        for (const [from, old] of undo) bytes.set(old, from);
      }),
      { numRuns: 200 },
    );
    t.pass();
  });
}

/** Where the fields are: most changes elsewhere would change nothing. */
async function placesRead(bytes: Buffer): Promise<[at: number, length: number][]> {
  const places: [number, number][] = [
    [0, 512],
    [1024, 1024],
    [4086, 10],
    [32 << 10, 4096],
    [64 << 10, 4096],
  ];
  await readSuperblock(async (offset, length) => {
    if (offset > 0) places.push([offset, length]);
    return bytes.subarray(offset, offset + length);
  }, bytes.length);
  return places.filter(([at]) => at + 8 < bytes.length);
}

t.test('a directory without an end', { skip: whyNot('mkfs.fat') }, async (t) => {
  const recipe = RECIPES.find(({ name }) => name === 'fat32') as (typeof RECIPES)[0];
  const { bytes } = make(recipe);
  // all entries are files, and every cluster leads to itself
  bytes.fill(0x41, 64 << 10);
  let count = 0;
  await readSuperblock(async (offset, length) => {
    count += 1;
    return bytes.subarray(offset, offset + length);
  }, bytes.length);
  t.ok(count <= 65, `${count} reads`);
});
