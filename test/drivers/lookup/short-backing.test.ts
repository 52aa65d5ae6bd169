/** A disk over a base that ends before it: what is behind the end of the base is zeros, until it is written. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { frontDisk } from '../../../drivers/disk.js';
import { byMap, type Served } from '../../conformance/by-map.js';
import { openTreeDisk } from '../graph-factory.js';
import { dynamicVhd } from '../images/vhd.js';

const MIB = 1 << 20;
const SIZE = 8 * MIB;
const BLOCK = 2 * MIB;

t.test('a VHD over a shorter parent: small writes behind its end are read by threads, too', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'short-'));
  t.teardown(() => rm(directory, { recursive: true }));
  const data = Buffer.alloc(BLOCK, 7);
  await writeFile(
    join(directory, 'base.vhd'),
    dynamicVhd({ size: MIB, blockBytes: BLOCK, placed: [{ block: 0, data }] }),
  );
  const path = join(directory, 'disk.vhd');
  const locators = [{ code: 'W2ru', name: Buffer.from('.\\base.vhd', 'utf16le') }];
  const child = { type: 4, parentUuid: '5a'.repeat(16), locators, placed: [] };
  await writeFile(path, dynamicVhd({ size: SIZE, blockBytes: BLOCK, ...child }));
  const counts: Served = { byMap: 0, byDriver: 0 };
  const raw = byMap(await openTreeDisk({ driver: 'vhd', options: {}, on: { file: { file: path } } }, false), counts);
  const disk = frontDisk(raw, { readOnly: false });
  const model = Buffer.alloc(SIZE);
  model.fill(7, 0, MIB);
  const check = async (at: number, why: string): Promise<void> => {
    const bytes = Buffer.alloc(12_288);
    const from = Math.max(0, at - (at % 4096) - 4096);
    const n = await disk.read(bytes, from);
    t.ok(bytes.subarray(0, n).equals(model.subarray(from, from + n)), `${why}, at byte ${at}`);
  };
  let fill = 0x20;
  for (const at of [4 * MIB, MIB + 512, MIB - 512, 6 * MIB + 1000, 4 * MIB + 8192 - 300, SIZE - 700]) {
    // the map learns what is there, and may then answer
    await check(at, 'before');
    await check(at, 'before, by the map');
    for (const length of [512, 300, 5000]) {
      const bytes = Buffer.alloc(Math.min(length, SIZE - at), fill++);
      await disk.write(bytes, at);
      bytes.copy(model, at);
      await check(at, `after ${length} bytes`);
      await check(at, `after ${length} bytes, by the map`);
    }
  }
  t.ok(counts.byMap > 20, `${counts.byMap} requests by the map`);
  await disk.close();
});
