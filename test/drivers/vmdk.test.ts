import { readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { frontDisk } from '../../drivers/disk.js';
import type { RawDisk } from '../../drivers/driver.js';
import { narrow } from '../../drivers/filters/narrow.js';
import { patternBytes } from '../conformance/pattern.js';
import { diskSuite } from '../conformance/suite.js';
import { bySyncCalls } from '../conformance/sync-calls.js';
import { type Builder, bySegments, graphFactory, makeFile, openImageDisk, openTreeDisk } from './graph-factory.js';
import { vmdkDescriptor } from './images/vmdk.js';
import { compareWithQemu, qemuImg, qemuIo, qemuSize, whyNoQemu } from './qemu.js';

const MIB = 1 << 20;
const SECTOR = 512;

/** Extents are whole sectors, so the disk of a test is the beginning of a larger one. */
function builder(extentsOf: (sectors: number) => readonly (readonly [sectors: number, start: number])[]): Builder {
  return async (size, directory) => {
    const path = join(directory, 'disk.vmdk');
    const extents = extentsOf(Math.ceil(size / SECTOR));
    const lines = extents.map(([sectors, start], i) => `RW ${sectors} FLAT "disk-f${i}.vmdk" ${start}`);
    await writeFile(path, vmdkDescriptor(lines));
    let offset = 0;
    const runs = [];
    for (const [i, [sectors, start]] of extents.entries()) {
      const extent = join(directory, `disk-f${i}.vmdk`);
      await makeFile(extent, (start + sectors) * SECTOR + 77);
      runs.push({ path: extent, offset, start: start * SECTOR, size: sectors * SECTOR });
      offset += sectors * SECTOR;
    }
    const graph = { driver: 'vmdk', options: {}, on: { file: { file: path } } };
    return { graph, runs, wrap: (raw: RawDisk) => narrow(raw, 0, size) };
  };
}

const one = builder((sectors) => [[sectors, 128]]);
const several = builder((sectors) => {
  const first = Math.ceil(sectors / 3);
  return [
    [first, 0],
    [1, 63],
    [sectors, 5],
  ];
});
const abilities = { maxSizeBytes: 2 ** 42, holes: true, shrink: true };
diskSuite({ name: 'vmdk', test: t, factory: graphFactory(one), abilities });
diskSuite({ name: 'vmdk in a thread', test: t, factory: graphFactory(one, { wrap: bySyncCalls }), abilities });
// holes that cross an end are not aligned in both files
const severalAbilities = { ...abilities, holes: false, shrink: false };
diskSuite({ name: 'vmdk of several files', test: t, factory: graphFactory(several), abilities: severalAbilities });
const bySegmentsFactory = graphFactory(several, { wrap: bySegments });
diskSuite({ name: 'vmdk by segments', test: t, factory: bySegmentsFactory, abilities: severalAbilities });

t.test('extents of zeros, and extents that are only read or not at all', async (t) => {
  const directory = t.testdir();
  const lines = [
    'RW 8 FLAT "a" 0',
    'RW 8 ZERO',
    'RDONLY 8 FLAT "a" 8',
    'NOACCESS 8 FLAT "no such file" 0',
    'RW 8 VMFS "b"',
  ];
  await makeFile(join(directory, 'a'), 16 * SECTOR, [0, patternBytes(0, 16 * SECTOR, 1)]);
  await makeFile(join(directory, 'b'), 8 * SECTOR);
  await writeFile(join(directory, 'disk.vmdk'), vmdkDescriptor(lines, { type: 'custom' }));
  const disk = await openImageDisk('vmdk', join(directory, 'disk.vmdk'));
  t.equal(disk.size, 40 * SECTOR);
  t.equal(disk.segments, undefined, 'zeros lie in no file');
  t.equal(disk.readOnly, false);
  const bytes = Buffer.alloc(24 * SECTOR, 0xee);
  await disk.read(bytes, 0);
  t.ok(bytes.subarray(0, 4096).equals(patternBytes(0, 4096, 1)));
  t.ok(bytes.subarray(4096, 8192).every((byte) => byte === 0));
  t.ok(bytes.subarray(8192).equals(patternBytes(4096, 4096, 1)));
  await t.rejects(disk.read(Buffer.alloc(1), 24 * SECTOR), { code: 'DENIED', errno: 5 });
  for (const sector of [8, 16, 24]) {
    await t.rejects(disk.write(Buffer.alloc(SECTOR), sector * SECTOR), { code: 'DENIED' }, `sector ${sector}`);
    await t.rejects(disk.zero(sector * SECTOR, SECTOR), { code: 'DENIED' }, `sector ${sector}`);
  }
  await disk.write(patternBytes(0, 4096, 2), 32 * SECTOR);
  await disk.write(patternBytes(0, 4096, 2), 0);
  await disk.flush();
  await disk.close();
  t.ok((await readFile(join(directory, 'b'))).equals(patternBytes(0, 4096, 2)));
  t.ok((await readFile(join(directory, 'a'))).subarray(4096).equals(patternBytes(4096, 4096, 1)));
});

t.test('a disk whose extents are all read-only is read-only, and threads see it', async (t) => {
  const directory = t.testdir();
  await makeFile(join(directory, 'a'), 16 * SECTOR);
  const lines = ['RDONLY 8 FLAT "a" 0', 'RDONLY 8 FLAT "a" 8'];
  await writeFile(join(directory, 'disk.vmdk'), vmdkDescriptor(lines));
  const disk = await openImageDisk('vmdk', join(directory, 'disk.vmdk'));
  t.equal(disk.readOnly, true);
  t.same(
    disk.segments?.map(({ start, readOnly }) => [start, readOnly]),
    [
      [0, true],
      [4096, true],
    ],
  );
  await disk.close();
});

t.test('an extent that is too short, or not there, is named', async (t) => {
  const directory = t.testdir();
  const path = join(directory, 'disk.vmdk');
  await writeFile(path, vmdkDescriptor(['RW 8 FLAT "disk-flat.vmdk" 1']));
  await t.rejects(openImageDisk('vmdk', path), { code: 'ENOENT' });
  await makeFile(join(directory, 'disk-flat.vmdk'), 9 * SECTOR - 1);
  const error = { code: 'FAILED', message: /'disk-flat.vmdk' ends at byte 4608, and the file has 4607 bytes/ };
  await t.rejects(openImageDisk('vmdk', path), error);
  await truncate(join(directory, 'disk-flat.vmdk'), 9 * SECTOR);
  const disk = await openImageDisk('vmdk', path);
  t.equal(disk.size, 4096);
  await disk.close();
});

t.test('a tracked disk is only read', async (t) => {
  const directory = t.testdir();
  const path = join(directory, 'disk.vmdk');
  await makeFile(join(directory, 'a'), 4096);
  await writeFile(
    path,
    vmdkDescriptor(['RW 8 VMFS "a"'], { type: 'vmfs', settings: ['changeTrackPath="a-ctk.vmdk"'] }),
  );
  await t.rejects(openImageDisk('vmdk', path), { code: 'DENIED', hint: /mode r/ });
  await (await openImageDisk('vmdk', path, true)).close();
});

t.test('images of QEMU', { skip: whyNoQemu() }, async (t) => {
  const path = join(t.testdir(), 'disk.vmdk');
  for (const subformat of ['monolithicFlat', 'twoGbMaxExtentFlat']) {
    await t.test(`${subformat}: read here and there`, async (t) => {
      qemuImg('create', '-q', '-f', 'vmdk', '-o', `subformat=${subformat}`, path, '5M');
      qemuIo('vmdk', path, 'write -P 0x41 4096 1M');
      const text = await readFile(path);
      const disk = await openImageDisk('vmdk', path);
      t.equal(disk.size, qemuSize('vmdk', path));
      await compareWithQemu('vmdk', path, disk);
      await disk.write(Buffer.alloc(8192, 0x42), 5 * MIB - 8192);
      await disk.write(patternBytes(0, 3000, 1), 0);
      await disk.flush();
      qemuIo('vmdk', path, `read -P 0x42 ${5 * MIB - 8192} 8192`);
      await compareWithQemu('vmdk', path, disk);
      await disk.close();
      t.ok(text.equals(await readFile(path)), 'the descriptor is as it was');
    });
  }
  await t.test('of several files are joined in order', async (t) => {
    const large = join(t.testdir(), 'large.vmdk');
    qemuImg('create', '-q', '-f', 'vmdk', '-o', 'subformat=twoGbMaxExtentFlat', large, '5G');
    const places = [0, 2 ** 31 - 65_536, 2 ** 31, 2 ** 32 - 65_536, 5 * 2 ** 30 - 65_536];
    for (const [i, at] of places.entries()) qemuIo('vmdk', large, `write -P ${i + 1} ${at} 64k`);
    const raw = await openTreeDisk({ driver: 'vmdk', options: {}, on: { file: { file: large } } }, false);
    const disk = frontDisk(raw, { readOnly: false });
    t.equal(disk.segments?.length, 3);
    const bytes = Buffer.alloc(65_536);
    for (const [i, at] of places.entries()) {
      await disk.read(bytes, at);
      t.ok(
        bytes.every((byte) => byte === i + 1),
        `at ${at}`,
      );
    }
    await disk.write(Buffer.alloc(65_536, 9), 2 ** 31 - 32_768);
    qemuIo('vmdk', large, `read -P 9 ${2 ** 31 - 32_768} 64k`);
    await disk.close();
  });
});
