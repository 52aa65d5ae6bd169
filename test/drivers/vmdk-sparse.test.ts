/**
 * Sparse VMDKs of QEMU that are read: the suite over them (below an overlay), their bytes compared with those
 * that QEMU and libvmdk read, by the driver and as threads read them.
 */
import { execFileSync } from 'node:child_process';
import { mkdtemp, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import t, { type Test } from 'tap';
import { type Disk, frontDisk } from '../../drivers/disk.js';
import type { RawDisk } from '../../drivers/driver.js';
import { narrow } from '../../drivers/filters/narrow.js';
import { Random } from '../../scripts/lib/torture/second-faults/random.js';
import { byMap, type Served } from '../conformance/by-map.js';
import { type DiskFactory, type DiskRequest, diskSuite } from '../conformance/suite.js';
import { seed } from './formats/image-bytes.js';
import { makeFile, openImageDisk, openTreeDisk, writePieces } from './graph-factory.js';
import { cowdVmdk } from './images/sparse-vmdk.js';
import { tarEnd, tarMember } from './images/tar.js';
import { vmdkDescriptor } from './images/vmdk.js';
import { readByLibvmdk, whyNoLibvmdk } from './libvmdk.js';
import { compareWithQemu, qemuImg, qemuIo, whyNoQemu } from './qemu.js';

t.setTimeout(600_000);
const MIB = 1 << 20;
const SPARSE = ['monolithicSparse', 'streamOptimized', 'twoGbMaxExtentSparse'];
const ALL = [...SPARSE, 'monolithicFlat', 'twoGbMaxExtentFlat'];
const skip = whyNoQemu();

/** Makes a VMDK with the bytes of a raw image. @returns its path */
type Make = (raw: string, directory: string) => string;

const converted =
  (subformat: string): Make =>
  (raw, directory) => {
    const image = join(directory, `${subformat}.vmdk`);
    qemuImg('convert', '-q', '-f', 'raw', '-O', 'vmdk', '-o', `subformat=${subformat}`, raw, image);
    return image;
  };

/** A linked clone, which has nothing itself. */
const cloned: Make = (raw, directory) => {
  const base = converted('monolithicSparse')(raw, directory);
  return overlay(base, join(directory, 'clone.vmdk'));
};

function overlay(base: string, path: string): string {
  qemuImg('create', '-q', '-f', 'vmdk', '-F', 'vmdk', '-b', basename(base), path);
  return path;
}

const inOva: Make = (raw, directory) => {
  const image = converted('streamOptimized')(raw, directory);
  const ova = join(directory, 'machine.ova');
  execFileSync('tar', ['-C', directory, '--format=ustar', '-cf', ova, basename(image)]);
  return ova;
};

function factory(make: Make, counts?: Served): DiskFactory {
  return async ({ size, pieces, readOnly }: DiskRequest) => {
    const directory = await mkdtemp(join(tmpdir(), 'vmdk-'));
    const dispose = (): Promise<void> => rm(directory, { recursive: true });
    try {
      const bytes = Math.ceil(size / 512) * 512;
      const raw = await makeFile(join(directory, 'disk.img'), bytes);
      await writePieces([{ path: raw, offset: 0, start: 0, size: bytes }], pieces);
      const backing = make(raw, directory);
      const file = join(directory, 'top.qcow2');
      qemuImg('create', '-q', '-u', '-f', 'qcow2', '-F', 'vmdk', '-b', basename(backing), file, `${bytes}`);
      const reopen = async (): Promise<RawDisk> => {
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

const abilities = { maxSizeBytes: 2 ** 30, holes: false, shrink: false };
const shapes: [name: string, make: Make][] = [
  ...SPARSE.map((subformat): [string, Make] => [subformat, converted(subformat)]),
  ['linked clone', cloned],
  ['VMDK in an OVA', inOva],
];
for (const [name, make] of skip === false ? shapes : []) {
  const under = `${name}, below an overlay`;
  const counts: Served = { byMap: 0, byDriver: 0 };
  // what the map does not know is served by the driver
  diskSuite({ name: `${under}, by its map`, test: t, factory: factory(make, counts), abilities, runs: 3 });
  t.test(`the map of ${under} served some of it`, async (t) => {
    t.ok(counts.byMap > 30, `${counts.byMap} requests by the map, ${counts.byDriver} by the driver`);
  });
}

/** Random bytes, repeated bytes and zeros, in pieces of any length. */
function randomBytes(size: number, random: Random): Buffer {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; ) {
    const end = Math.min(size, at + 1 + random.below(200_000));
    const kind = random.below(4);
    if (kind === 0) for (let i = at; i < end; i += 1) bytes[i] = random.below(256);
    else if (kind === 1) bytes.fill(random.below(256), at, end);
    at = end;
  }
  return bytes;
}

async function readAll(disk: Pick<RawDisk, 'size' | 'read'>, pieceBytes: number): Promise<Buffer> {
  const bytes = Buffer.alloc(disk.size);
  for (let at = 0; at < disk.size; at += pieceBytes) await disk.read(bytes.subarray(at, at + pieceBytes), at);
  return bytes;
}

t.test(`the bytes that QEMU has written (FUSETAP_TEST_SEED=${seed})`, { skip }, async (t) => {
  const random = new Random(seed);
  for (const size of [512, 65_536, 5 * MIB + 3 * 512, 34 * MIB + 512 * random.below(1000)]) {
    const directory = t.testdir();
    const raw = join(directory, 'disk.img');
    const bytes = randomBytes(size, random);
    await writeFile(raw, bytes);
    for (const subformat of ALL) {
      const path = converted(subformat)(raw, directory);
      await t.test(`${subformat}, ${size} bytes`, (t) => checkBytes(t, path, bytes));
    }
  }
});

async function checkBytes(t: Test, path: string, bytes: Buffer): Promise<void> {
  const raw = await openTreeDisk({ driver: 'vmdk', options: {}, on: { file: { file: path } } }, true);
  t.equal(raw.size, bytes.length);
  await compareWithQemu('vmdk', path, frontDisk(raw, { readOnly: true }));
  t.ok((await readAll(raw, 70_001)).equals(bytes));
  const counts: Served = { byMap: 0, byDriver: 0 };
  if (raw.segments === undefined) {
    const served = byMap(raw, counts);
    for (const pieceBytes of [4096, 70_001, 4096]) t.ok((await readAll(served, pieceBytes)).equals(bytes));
    t.ok(counts.byMap > 0 || bytes.length <= 65_536, `${counts.byMap} by the map, ${counts.byDriver} by the driver`);
  }
  await raw.close();
}

t.test('a split disk of several files', { skip }, async (t) => {
  const large = join(t.testdir(), 'large.vmdk');
  qemuImg('create', '-q', '-f', 'vmdk', '-o', 'subformat=twoGbMaxExtentSparse', large, '5G');
  const places = [0, 2 ** 31 - 65_536, 2 ** 31, 2 ** 32 - 65_536, 5 * 2 ** 30 - 65_536];
  for (const [i, at] of places.entries()) qemuIo('vmdk', large, `write -P ${i + 1} ${at} 64k`);
  const raw = await openTreeDisk({ driver: 'vmdk', options: {}, on: { file: { file: large } } }, true);
  const counts: Served = { byMap: 0, byDriver: 0 };
  const disk = byMap(raw, counts);
  for (let round = 0; round < 2; round += 1) {
    for (const [i, at] of places.entries()) {
      const bytes = Buffer.alloc(65_536);
      await disk.read(bytes, at);
      t.ok(bytes.equals(Buffer.alloc(65_536, i + 1)), `at ${at}`);
    }
    await new Promise(setImmediate);
  }
  t.ok(counts.byMap >= 4, `${counts.byMap} by the map`);
  await raw.close();
});

t.test('a renamed file, and modes', { skip }, async (t) => {
  const directory = t.testdir();
  for (const subformat of SPARSE) {
    const path = join(directory, `${subformat}.vmdk`);
    qemuImg('create', '-q', '-f', 'vmdk', '-o', `subformat=${subformat}`, path, '5M');
    if (subformat === 'monolithicSparse') continue;
    const denied = { code: 'DENIED', message: /can only be read/, hint: /mode r.*--snapshot/ };
    await t.rejects(openImageDisk('vmdk', path), denied, subformat);
  }
  await rename(join(directory, 'monolithicSparse.vmdk'), join(directory, 'other name.vmdk'));
  const disk = await openImageDisk('vmdk', join(directory, 'other name.vmdk'), true);
  t.equal(disk.size, 5 * MIB);
  await disk.close();
  const extent = { code: 'UNSUPPORTED', message: /an extent of a VMDK/, hint: /descriptor/ };
  await t.rejects(openImageDisk('vmdk', join(directory, 'twoGbMaxExtentSparse-s001.vmdk'), true), extent);
});

t.test('a chain of linked clones', { skip }, async (t) => {
  const directory = t.testdir();
  const base = join(directory, 'base.vmdk');
  qemuImg('create', '-q', '-f', 'vmdk', '-o', 'subformat=twoGbMaxExtentSparse', base, '6M');
  qemuIo('vmdk', base, 'write -P 1 0 3M');
  const middle = overlay(base, join(directory, 'middle.vmdk'));
  qemuIo('vmdk', middle, 'write -P 2 1M 1000k');
  const top = overlay(middle, join(directory, 'top.vmdk'));
  qemuIo('vmdk', top, 'write -P 3 1500k 70k');
  qemuIo('vmdk', top, 'write -z 64k 64k');
  const disk = await openImageDisk('vmdk', top, true);
  await compareWithQemu('vmdk', top, disk);
  const depths = new Set((await disk.places.locate(0, 3 * MIB)).map(({ depth }) => depth));
  t.same([...depths].sort(), [0, 1, 2]);
  const raw = await openTreeDisk({ driver: 'vmdk', options: {}, on: { file: { file: top } } }, true);
  const counts: Served = { byMap: 0, byDriver: 0 };
  const served = byMap(raw, counts);
  const expected = await readAll(raw, MIB);
  for (let round = 0; round < 2; round += 1) t.ok((await readAll(served, 65_536)).equals(expected));
  t.ok(counts.byMap > 90, `${counts.byMap} by the map, ${counts.byDriver} by the driver`);
  await raw.close();
  await disk.close();
  // a write to the parent changes its content id
  await changeContentId(middle);
  const wrong = { code: 'FAILED', message: /top\.vmdk: its parent has the content id 0*1234567\d*, not/ };
  await t.rejects(openImageDisk('vmdk', top, true), wrong);
});

/** Gives another content id to the descriptor in an image. */
async function changeContentId(path: string): Promise<void> {
  const file = await open(path, 'r+');
  const head = Buffer.alloc(2048);
  await file.read(head, 0, head.length, 0);
  // QEMU writes an id without zeros in front
  const start = head.indexOf('\nCID=') + 5;
  const digits = head.indexOf('\n', start) - start;
  await file.write('12345678'.slice(0, digits).padStart(digits, '0'), start, 'latin1');
  await file.close();
}

t.test('a snapshot of ESXi over a flat disk', async (t) => {
  const directory = t.testdir();
  const base = Buffer.alloc(MIB, 'what the base has');
  await writeFile(join(directory, 'base-flat.vmdk'), base);
  await writeFile(join(directory, 'base.vmdk'), vmdkDescriptor(['RW 2048 VMFS "base-flat.vmdk"'], { type: 'vmfs' }));
  const grains = new Map([5, 6, 2047].map((number) => [number, Buffer.alloc(512, number)]));
  await writeFile(join(directory, 'a-000001-delta.vmdk'), cowdVmdk(grains, { size: MIB }).bytes);
  const parent = { parent: '12345678', settings: ['parentFileNameHint="base.vmdk"'] };
  const text = vmdkDescriptor(['RW 2048 VMFSSPARSE "a-000001-delta.vmdk"'], { type: 'vmfsSparse', ...parent });
  await writeFile(join(directory, 'a-000001.vmdk'), text);
  const expected = Buffer.from(base);
  for (const [number, bytes] of grains) bytes.copy(expected, number * 512);
  const disk = await openImageDisk('vmdk', join(directory, 'a-000001.vmdk'), true);
  const bytes = Buffer.alloc(MIB);
  await disk.read(bytes, 0);
  t.ok(bytes.equals(expected));
  await disk.close();
});

t.test('an OVA with several disks', { skip }, async (t) => {
  const directory = t.testdir();
  const raw = await makeFile(join(directory, 'disk.img'), MIB, [4096, Buffer.alloc(5000, 'abc')]);
  const image = await readFile(converted('streamOptimized')(raw, directory));
  const ova = join(directory, 'a.ova');
  await writeFile(ova, Buffer.concat([tarMember('a.vmdk', image), tarMember('b.vmdk', image), tarEnd]));
  const several = { code: 'USAGE', hint: /vmdk:tar:IMAGE.*file\/member=NAME: 'a.vmdk', 'b.vmdk'/ };
  await t.rejects(openImageDisk('vmdk', ova, true), several);
  const graph = {
    driver: 'vmdk',
    options: {},
    on: { file: { driver: 'tar', options: { member: 'b.vmdk' }, on: { file: { file: ova } } } },
  };
  const disk = await openTreeDisk(graph, true);
  t.ok((await readAll(disk, 4096)).equals(await readFile(raw)), 'one of them by the driver tar');
  await disk.close();
});

t.test('libvmdk reads the same', { skip: skip || whyNoLibvmdk() }, async (t) => {
  const directory = t.testdir({ mount: {} });
  const raw = join(directory, 'disk.img');
  await writeFile(raw, randomBytes(7 * MIB + 1536, new Random(seed)));
  // it does not read monolithicFlat
  for (const subformat of [...SPARSE, 'twoGbMaxExtentFlat']) {
    const path = converted(subformat)(raw, directory);
    const theirs = readByLibvmdk(path, join(directory, 'mount'));
    const disk = await openImageDisk('vmdk', path, true);
    t.ok(theirs.equals(await ours(disk)), subformat);
    await disk.close();
  }
});

async function ours(disk: Disk): Promise<Buffer> {
  return await readAll({ size: disk.size, read: async (...part) => void (await disk.read(...part)) }, MIB);
}
