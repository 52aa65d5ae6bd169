/** What the map of a disk learns from requests that are smaller than its granules. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { frontDisk } from '../../../drivers/disk.js';
import { ASK } from '../../../drivers/map/table.js';
import { openTreeDisk } from '../graph-factory.js';
import { dynamicVhd } from '../images/vhd.js';

const MIB = 1 << 20;
const BLOCK = 2 * MIB;
const BLOCKS = 40;

t.test('a VHD whose sector bitmaps are read one after the other', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'learn-'));
  t.teardown(() => rm(directory, { recursive: true }));
  const path = join(directory, 'disk.vhd');
  const placed = Array.from({ length: BLOCKS }, (_, block) => ({ block, data: Buffer.alloc(BLOCK, block + 1) }));
  await writeFile(path, dynamicVhd({ size: BLOCKS * BLOCK, blockBytes: BLOCK, placed }));
  const raw = await openTreeDisk({ driver: 'vhd', options: {}, on: { file: { file: path } } }, false);
  const map = raw.map?.map;
  if (map === undefined) throw new Error('the disk has no map');
  map.servedBy({ quiesce: async () => {} });
  const disk = frontDisk(raw, { readOnly: false });
  const buffer = Buffer.alloc(4096);
  let reads = 0;
  for (let granule = 0; granule < map.granules; granule++) {
    if (map.entry(granule).state !== ASK) continue;
    const at = granule * map.granuleBytes + 8192;
    await disk.read(buffer, at);
    reads++;
    t.ok(buffer.equals(Buffer.alloc(4096, Math.floor(at / BLOCK) + 1)));
    if (map.entry(granule).state === ASK) t.fail(`granule ${granule} is not known after a read of a part of it`);
  }
  t.ok(reads <= 2 * BLOCKS, `${reads} reads were needed for ${map.granules} granules`);
  await disk.close();
});
