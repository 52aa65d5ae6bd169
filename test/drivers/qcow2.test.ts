/** The suite over images of QEMU: of several shapes, and over chains; served by the driver alone, and as threads do. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import t from 'tap';
import { narrow } from '../../drivers/filters/narrow.js';
import { byMap, type Served } from '../conformance/by-map.js';
import { type DiskFactory, type DiskRequest, diskSuite } from '../conformance/suite.js';
import { makeFile, openTreeDisk, writePieces } from './graph-factory.js';
import { qemuImg, whyNoQemu } from './qemu.js';

const abilities = { maxSizeBytes: 2 ** 42, holes: true, shrink: false };
const small = { ...abilities, maxSizeBytes: 2 ** 30 };
t.setTimeout(600_000);

/** Makes an image whose disk has the bytes of a raw image. @returns its path */
type Make = (raw: string, directory: string) => string;

const converted =
  (options: string, ...words: string[]): Make =>
  (raw, directory) => {
    const image = join(directory, 'disk.qcow2');
    qemuImg('convert', '-q', '-f', 'raw', '-O', 'qcow2', ...words, '-o', options, raw, image);
    return image;
  };

/** Overlays over the raw image, one above the other; the one at the top is written. */
const overlays =
  (...options: string[]): Make =>
  (raw, directory) => {
    let [below, format] = [raw, 'raw'];
    for (const [i, each] of options.entries()) {
      const image = join(directory, `${i}.qcow2`);
      qemuImg('create', '-q', '-f', 'qcow2', '-o', each, '-F', format, '-b', basename(below), image);
      [below, format] = [image, 'qcow2'];
    }
    return below;
  };

function factory(make: Make, counts?: Served): DiskFactory {
  return async ({ size, pieces, readOnly }: DiskRequest) => {
    const directory = await mkdtemp(join(tmpdir(), 'qcow2-'));
    const dispose = (): Promise<void> => rm(directory, { recursive: true });
    try {
      // a disk of qcow2 is whole sectors
      const bytes = Math.ceil(size / 512) * 512;
      const raw = await makeFile(join(directory, 'disk.img'), bytes);
      await writePieces([{ path: raw, offset: 0, start: 0, size: bytes }], pieces);
      const file = make(raw, directory);
      const reopen = async () => {
        const disk = await openTreeDisk({ driver: 'qcow2', options: {}, on: { file: { file } } }, readOnly);
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

const shapes: [name: string, make: Make, able: typeof abilities][] = [
  ['qcow2', converted('compat=1.1'), abilities],
  ['qcow2 with small clusters', converted('cluster_size=512,refcount_bits=1'), small],
  ['qcow2 with extended L2', converted('extended_l2=on,cluster_size=16k'), small],
  ['compressed qcow2', converted('compression_type=zstd', '-c'), { ...small, holes: false }],
  ['qcow2 over a raw image', overlays('cluster_size=64k'), { ...abilities, holes: false }],
  ['a chain of qcow2', overlays('cluster_size=4k', 'extended_l2=on', 'cluster_size=64k'), { ...small, holes: false }],
];

for (const [name, make, able] of whyNoQemu() === false ? shapes : []) {
  diskSuite({ name, test: t, factory: factory(make), abilities: able, runs: 4 });
  const counts: Served = { byMap: 0, byDriver: 0 };
  diskSuite({ name: `${name}, by its map`, test: t, factory: factory(make, counts), abilities: able, runs: 4 });
  t.test(`the map of ${name} served some of it`, async (t) => {
    t.ok(counts.byMap > 50, `${counts.byMap} requests by the map, ${counts.byDriver} by the driver`);
  });
}
