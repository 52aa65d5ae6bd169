/** What mkfs of each kind has made is read as blkid(8) reads it; so are leftovers of one file system in another. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { whyNot } from '../../e2e/fixtures.js';
import { byBlkid, make, RECIPES, readKnown } from './images.js';

for (const recipe of RECIPES) {
  t.test(recipe.name, { skip: whyNot(recipe.program, 'blkid') }, async (t) => {
    const { bytes, known } = make(recipe);
    t.not(known.type, null, 'blkid knows it');
    t.same(await readKnown(bytes), known);
  });
}

/** The bytes of one image over those of another: what a disk has that was formatted twice. */
function over(below: string, above: string, keep: readonly [at: number, end: number][]): Buffer {
  const [one, other] = [below, above].map(
    (name) => make(RECIPES.find((each) => each.name === name) as (typeof RECIPES)[0]).bytes,
  );
  const bytes = Buffer.alloc(Math.max(one?.length ?? 0, other?.length ?? 0));
  other?.copy(bytes);
  for (const [at, end] of keep) one?.copy(bytes, at, at, end);
  return bytes;
}

t.test(
  'leftovers',
  { skip: whyNot('blkid', 'mkfs.ext4', 'mkfs.btrfs', 'mkfs.ntfs', 'mkfs.fat', 'genisoimage') },
  async (t) => {
    const cases: [what: string, bytes: Buffer][] = [
      ['btrfs in ext4', over('btrfs', 'ext4', [[64 << 10, 68 << 10]])],
      ['ext4 in ntfs', over('ext4', 'ntfs', [[1024, 2048]])],
      ['iso in ext4', over('iso', 'ext4', [[32 << 10, 64 << 10]])],
      ['swap in ext4', over('swap', 'ext4', [[4096 - 10, 4096]])],
      ['ext4 in a floppy', over('ext2', 'floppy', [[1024, 2048]]).subarray(0, 1 << 20)],
      ['nothing', Buffer.alloc(1 << 20)],
      ['one byte', Buffer.alloc(1)],
    ];
    const directory = mkdtempSync(join(process.env.TMPDIR ?? '/tmp', 'leftovers-'));
    for (const [index, [what, bytes]] of cases.entries()) {
      const image = join(directory, String(index));
      writeFileSync(image, bytes);
      t.same(await readKnown(bytes), byBlkid(image), what);
    }
  },
);

t.test('a physical volume', { skip: whyNot('blkid', 'pvcreate', 'losetup') }, async (t) => {
  const { withPhysicalVolume } = await import('./physical-volume.js');
  const { bytes, known } = withPhysicalVolume(8 << 20);
  t.equal(known.type, 'LVM2_member');
  t.same(await readKnown(bytes), known);
});
