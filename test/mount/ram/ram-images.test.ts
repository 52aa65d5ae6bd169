/** How much a memory may grow, where little is left: what is needed, and of the rest not all. */
import { closeSync, ftruncateSync } from 'node:fs';
import { mkdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { dir } from 'tmp-promise';
import { openImage } from '../../../mount/images/open-image.js';
import { ramDirectory } from '../../../mount/ram/lock.js';
import { RamImages } from '../../../mount/ram/ram-images.js';
import { imageIdentity } from '../../../mount/ram/share-rules.js';
import { Bookkeeping } from '../../../mount/runtime/bookkeeping.js';
import { PAGE_BYTES } from '../../../system/page.js';

const MIB = 1 << 20;

t.test('of what is left, half is left to others, but what is needed is given', async (t) => {
  const { path, cleanup } = await dir({ unsafeCleanup: true });
  t.teardown(cleanup);
  await mkdir(ramDirectory(path), { recursive: true });
  const at = join(path, 'disk.img');
  await writeFile(at, '');
  await truncate(at, 64 * MIB);
  process.env.FUSETAP_RAM_LIMIT = '10M';
  const image = await openImage(at, 'r', { mountpoint: join(path, 'bus') });
  t.teardown(() => closeSync(image.fd));
  const memories = new RamImages(path, 'a', new Bookkeeping());
  const copied = { ...image, identity: imageIdentity(image) };
  const wish = { driver: 'ram', share: null, image: copied, signal: new AbortController().signal };
  const { memory } = await memories.acquire(wish, {
    measure: async () => ({ bytes: 0, sizeBytes: null }),
    fill: async (fd) => {
      ftruncateSync(fd, 64 * MIB);
      return null;
    },
  });
  await memories.unreserveWhole(memory);
  const grant = (unspent: number, wanted: number, needed: number) => memories.grant(memory, unspent, wanted, needed);
  t.equal(await grant(0, 64 * MIB, 0), 5 * MIB, 'half of what is left');
  t.equal(await grant(5 * MIB, 64 * MIB, PAGE_BYTES), 2.5 * MIB, 'and half of the rest');
  t.equal(await grant(7.5 * MIB, 64 * MIB, 2 * MIB), 2 * MIB, 'what is needed, if that is more');
  t.equal(await grant(9.5 * MIB, 64 * MIB, MIB), 0.5 * MIB, 'no more than there is');
  t.equal(await grant(10 * MIB, 64 * MIB, PAGE_BYTES), 0);
  t.equal(await grant(0, MIB, 0), MIB, 'nor than is wanted');
  t.equal(await grant(10 * MIB - PAGE_BYTES, 64 * MIB, 0), 0, 'whole pages');
  await memories.end();
  closeSync(memory.fd);
});
