/** The suite over VHDX images: of QEMU, and composed by hand with what QEMU cannot make: parents, logs, sectors of 4 KiB. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { narrow } from '../../drivers/filters/narrow.js';
import { byMap, type Served } from '../conformance/by-map.js';
import { type DiskAbilities, type DiskFactory, type DiskRequest, diskSuite } from '../conformance/suite.js';
import { makeFile, openTreeDisk, writePieces } from './graph-factory.js';
import { qemuImg, whyNoQemu } from './qemu.js';
import { composeVhdx } from './vhdx/compose.js';

t.setTimeout(600_000);

/** Makes an image whose disk has the bytes of a raw image. @returns its path */
type Make = (raw: string, directory: string) => Promise<string>;

const converted =
  (options: string): Make =>
  async (raw, directory) => {
    const image = join(directory, 'disk.vhdx');
    qemuImg('convert', '-q', '-f', 'raw', '-O', 'vhdx', '-o', options, raw, image);
    return image;
  };

function factory(make: Make, counts?: Served): DiskFactory {
  return async ({ size, pieces }: DiskRequest) => {
    const directory = await mkdtemp(join(tmpdir(), 'vhdx-'));
    const dispose = (): Promise<void> => rm(directory, { recursive: true });
    try {
      // a disk is whole sectors
      const bytes = Math.ceil(size / 4096) * 4096;
      const raw = await makeFile(join(directory, 'disk.img'), bytes);
      await writePieces([{ path: raw, offset: 0, start: 0, size: bytes }], pieces);
      const file = await make(raw, directory);
      const reopen = async () => {
        const disk = await openTreeDisk({ driver: 'vhdx', options: {}, on: { file: { file } } }, true);
        const cut = bytes === size ? disk : narrow(disk, 0, size);
        return counts === undefined ? cut : byMap(cut, counts);
      };
      return { raw: await reopen(), reopen, dispose };
    } catch (error) {
      await dispose();
      throw error;
    }
  };
}

const large: DiskAbilities = { maxSizeBytes: 2 ** 42, holes: true, shrink: false, writes: false };
const small: DiskAbilities = { ...large, maxSizeBytes: 2 ** 26, holes: false };

const QEMU: [name: string, make: Make, able: DiskAbilities][] = [
  ['vhdx', converted('subformat=dynamic'), large],
  ['vhdx with small blocks', converted('block_size=1M'), { ...large, maxSizeBytes: 2 ** 30 }],
  ['fixed vhdx', converted('subformat=fixed'), { ...large, maxSizeBytes: 2 ** 30 }],
];
const COMPOSED: typeof QEMU = [
  ['vhdx with sectors of 4 KiB', (...at) => composeVhdx(...at, { sectorBytes: 4096 }), small],
  ['vhdx with a log', (...at) => composeVhdx(...at, { hasLog: true }), small],
  ['differencing vhdx', (...at) => composeVhdx(...at, { hasParent: true }), small],
  [
    'differencing vhdx with a log and sectors of 4 KiB',
    (...at) => composeVhdx(...at, { hasParent: true, hasLog: true, sectorBytes: 4096 }),
    small,
  ],
];

for (const [name, make, able] of [...(whyNoQemu() === false ? QEMU : []), ...COMPOSED]) {
  diskSuite({ name, test: t, factory: factory(make), abilities: able, runs: 4 });
  const counts: Served = { byMap: 0, byDriver: 0 };
  diskSuite({ name: `${name}, by its map`, test: t, factory: factory(make, counts), abilities: able, runs: 4 });
  t.test(`the map of ${name} served some of it`, async (t) => {
    // what the log replaces is in memory, which is most of a small disk
    t.ok(
      counts.byMap > (name.includes('log') ? 0 : 20),
      `${counts.byMap} requests by the map, ${counts.byDriver} by the driver`,
    );
  });
}
