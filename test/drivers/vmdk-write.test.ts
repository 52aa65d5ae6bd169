/**
 * Sparse VMDKs that are written: the suite over them, by the driver and as threads serve them; what QEMU and libvmdk read
 * afterwards; and what a session changes in the header and the descriptor.
 */
import { copyFile, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Disk, frontDisk } from '../../drivers/disk.js';
import { narrow } from '../../drivers/filters/narrow.js';
import vmdkCreator from '../../drivers/vmdk/create.js';
import vmdkExaminer from '../../drivers/vmdk/examine.js';
import { Random } from '../../scripts/lib/torture/second-faults/random.js';
import { byMap, type Served } from '../conformance/by-map.js';
import { patternBytes, pieceBytes } from '../conformance/pattern.js';
import { type DiskFactory, diskSuite } from '../conformance/suite.js';
import { diskOf, seed } from './formats/image-bytes.js';
import { openImageDisk, openTreeDisk } from './graph-factory.js';
import { type Grain, hostedVmdk, type SparseFields, streamVmdk } from './images/sparse-vmdk.js';
import { tarEnd, tarMember } from './images/tar.js';
import { vmdkDescriptor } from './images/vmdk.js';
import { readByLibvmdk, whyNoLibvmdk } from './libvmdk.js';
import { compareWithQemu, qemuImg, qemuIo, qemuSize, whyNoQemu } from './qemu.js';

t.setTimeout(600_000);
const MIB = 1 << 20;
const GRAIN = 65_536;
const skip = whyNoQemu();

const graphOf = (file: string) => ({ driver: 'vmdk', options: {}, on: { file: { file } } });

interface Shape {
  readonly fields: Partial<SparseFields>;
  readonly maxSizeBytes: number;
  /** every other grain is there from the beginning, at any sector; default: none is */
  readonly hasGrains?: boolean;
  /** bytes of a parent */
  readonly parent?: Buffer;
}

function factory({ fields, hasGrains = false, parent }: Shape, counts?: Served): DiskFactory {
  return async ({ size, pieces, readOnly }) => {
    const directory = await mkdtemp(join(tmpdir(), 'vmdk-'));
    const path = join(directory, 'disk.vmdk');
    const bytes = Math.ceil(size / 512) * 512;
    const { grainBytes = GRAIN } = fields;
    const grains = new Map<number, Grain>();
    const some = hasGrains ? Math.min(40, Math.ceil(bytes / grainBytes)) : 0;
    for (let grain = 0; grain < some; grain += 2) grains.set(grain, Buffer.alloc(grainBytes));
    const settings = parent === undefined ? {} : { parent: '12345678', settings: ['parentFileNameHint="base.vmdk"'] };
    const descriptor = vmdkDescriptor([`RW ${bytes / 512} SPARSE "a"`], { type: 'monolithicSparse', ...settings });
    await writeFile(path, hostedVmdk(grains, { size: bytes, descriptor, ...fields }).bytes);
    if (parent !== undefined) await writeBase(directory, parent);
    const reopen = async (readOnly: boolean) => {
      const disk = await openTreeDisk(graphOf(path), readOnly);
      const served = counts === undefined ? disk : byMap(disk, counts);
      return bytes === size ? served : narrow(served, 0, size);
    };
    const first = frontDisk(await reopen(false), { readOnly: false });
    // the suite wants zeros
    if (parent !== undefined) await first.zero(0, Math.min(size, parent.length));
    for (const piece of pieces) await first.write(pieceBytes(piece), piece.offset);
    await first.close();
    return {
      raw: await reopen(readOnly),
      reopen: () => reopen(readOnly),
      dispose: () => rm(directory, { recursive: true }),
    };
  };
}

/** A flat parent, whose content id is that of vmdkDescriptor. */
async function writeBase(directory: string, bytes: Buffer): Promise<void> {
  await writeFile(join(directory, 'base-flat.vmdk'), bytes);
  await writeFile(join(directory, 'base.vmdk'), vmdkDescriptor([`RW ${bytes.length / 512} FLAT "base-flat.vmdk" 0`]));
}

const small = { grainBytes: 4096, entries: 16, redundant: true };
const SHAPES: Readonly<Record<string, Shape>> = {
  'with all its tables, twice': { fields: { redundant: true, allTables: true }, maxSizeBytes: 2 ** 30 },
  'with tables that are missing': { fields: { redundant: true }, maxSizeBytes: 2 ** 40 },
  'with tables that are there once': { fields: { flags: 1 }, maxSizeBytes: 2 ** 40, hasGrains: true },
  'with small grains': { fields: small, maxSizeBytes: 2 ** 28, hasGrains: true },
  'over a parent': {
    ...{ fields: { ...small, flags: 3 }, maxSizeBytes: 2 ** 28, hasGrains: true },
    parent: patternBytes(0, 200 * 512, 7),
  },
  'over a parent, with entries for zeros': {
    ...{ fields: { redundant: true }, maxSizeBytes: 2 ** 30 },
    parent: patternBytes(0, 3 * MIB, 7),
  },
};

for (const [name, shape] of Object.entries(SHAPES)) {
  const { maxSizeBytes, hasGrains = false } = shape;
  const abilities = { maxSizeBytes, holes: !hasGrains, shrink: false };
  const counts: Served = { byMap: 0, byDriver: 0 };
  diskSuite({ name, test: t, factory: factory(shape), abilities, runs: 3 });
  diskSuite({ name: `${name}, by its map`, test: t, factory: factory(shape, counts), abilities, runs: 3 });
  t.test(`the map of a disk ${name} served some of it`, async (t) => {
    t.ok(counts.byMap > 30, `${counts.byMap} requests by the map, ${counts.byDriver} by the driver`);
  });
}

async function make(path: string, size: number, options: Record<string, string> = {}): Promise<string> {
  const image = { name: path.slice(path.lastIndexOf('/') + 1), size, backing: null, options };
  vmdkCreator.check(image);
  const file = await open(path, 'w+');
  await vmdkCreator.write(file.fd, image);
  await file.close();
  return path;
}

const cidOf = async (path: string): Promise<string | undefined> =>
  /^CID=([\da-f]{8})$/m.exec((await readFile(path)).toString('latin1', 512, 4096))?.[1];
const isUnclean = async (path: string): Promise<boolean> => (await readFile(path))[72] !== 0;

t.test('new images are those of QEMU', { skip }, async (t) => {
  const directory = t.testdir();
  for (const size of [512, 1000, 5 * MIB + 512, 300 * MIB]) {
    for (const options of [{}, { zeroed_grain: 'on' }]) {
      const bytes = Math.ceil(size / 512) * 512;
      const [ours, theirs] = [join(directory, 'ours.vmdk'), join(directory, 'theirs.vmdk')];
      await make(ours, size, options);
      t.equal(qemuSize('vmdk', ours), bytes);
      const words = Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
      qemuImg('create', '-q', '-f', 'vmdk', ...words, theirs, `${bytes}`);
      const [one, other] = [await readFile(ours), await readFile(theirs)];
      for (const image of [one, other]) image.fill(0, 512, 21 * 512);
      t.ok(one.equals(other), 'all but the descriptor');
    }
  }
  t.throws(() => vmdkCreator.check({ size: 2041 * 2 ** 30, backing: null, options: {} }), {
    message: /at most 2040 GiB/,
  });
  const backing = { name: 'a"b.vmdk', format: 'vmdk', identity: '12345678' };
  t.throws(() => vmdkCreator.check({ size: MIB, backing, options: {} }), { message: /cannot name/ });
  t.throws(() => vmdkCreator.check({ size: MIB, backing: { ...backing, identity: null }, options: {} }), {
    message: /content id/,
  });
});

t.test(`random writes, read by QEMU and libvmdk (FUSETAP_TEST_SEED=${seed})`, { skip }, async (t) => {
  const random = new Random(seed);
  const directory = t.testdir({ mount: {} });
  for (const maker of ['ours', 'of QEMU']) {
    const size = 34 * MIB + 512 * random.below(1000);
    const path = join(directory, 'disk.vmdk');
    if (maker === 'ours') await make(path, size);
    else qemuImg('create', '-q', '-f', 'vmdk', path, `${size}`);
    const disk = await openImageDisk('vmdk', path);
    const model = Buffer.alloc(size);
    for (let i = 0; i < 60; i++) await change(disk, model, random);
    await disk.close();
    const again = await openImageDisk('vmdk', path, true);
    await compareWithQemu('vmdk', path, again);
    t.ok((await readAll(again)).equals(model), maker);
    await again.close();
    t.match(qemuImg('check', '-f', 'vmdk', path), /No errors/);
    if (whyNoLibvmdk() === false) t.ok(readByLibvmdk(path, join(directory, 'mount')).equals(model), 'libvmdk');
    t.match(await vmdkExaminer.checker.check(diskOf(await readFile(path))), { corruptions: [], isDirty: false });
    t.equal(await isUnclean(path), false);
    await rm(path);
  }
});

async function change(disk: Disk, model: Buffer, random: Random): Promise<void> {
  const offset = random.below(model.length);
  const length = Math.min(1 + random.below(random.pick([100, 5000, 200_000])), model.length - offset);
  if (random.isOneIn(4)) {
    await disk.zero(offset, length, { punch: random.isOneIn(2) });
    model.fill(0, offset, offset + length);
    return;
  }
  const bytes = patternBytes(offset, length, random.below(200));
  await disk.write(bytes, offset);
  bytes.copy(model, offset);
}

async function readAll(disk: Disk): Promise<Buffer> {
  const bytes = Buffer.alloc(disk.size);
  for (let at = 0; at < bytes.length; at += MIB) await disk.read(bytes.subarray(at, at + MIB), at);
  return bytes;
}

t.test('the first write of a session changes the content id, and nothing else does', { skip }, async (t) => {
  const path = await make(join(t.testdir(), 'a.vmdk'), 5 * MIB);
  const first = await cidOf(path);
  const reader = await openImageDisk('vmdk', path);
  await reader.read(Buffer.alloc(5000), 100);
  await reader.flush();
  await reader.close();
  t.equal(await cidOf(path), first);
  const disk = await openImageDisk('vmdk', path);
  t.equal(disk.identity, first);
  await disk.write(Buffer.alloc(1, 1), 0);
  const second = await cidOf(path);
  t.match(second, /^[\da-f]{8}$/);
  t.not(second, first);
  t.equal(await isUnclean(path), true);
  await disk.write(Buffer.alloc(1, 2), 3 * MIB);
  t.equal(await cidOf(path), second, 'once');
  await disk.close();
  t.equal(await isUnclean(path), false);
  t.equal(await cidOf(path), second);
  const next = await openImageDisk('vmdk', path);
  await next.zero(0, 512);
  await next.close();
  t.not(await cidOf(path), second, 'the next session');
});

t.test('an image over one that was written is refused, as QEMU does', { skip }, async (t) => {
  const directory = t.testdir();
  const base = await make(join(directory, 'base.vmdk'), 5 * MIB);
  const top = join(directory, 'top.vmdk');
  qemuImg('create', '-q', '-f', 'vmdk', '-b', 'base.vmdk', '-F', 'vmdk', top);
  const child = await openImageDisk('vmdk', top);
  await child.write(Buffer.alloc(5000, 9), MIB - 100);
  await child.close();
  qemuIo('vmdk', top, `read -P 9 ${MIB - 100} 5000`);
  const disk = await openImageDisk('vmdk', base);
  await disk.write(Buffer.alloc(1, 1), 0);
  await disk.close();
  await t.rejects(openImageDisk('vmdk', top, true), { code: 'FAILED', message: /content id/ });
  t.throws(() => qemuIo('vmdk', top, 'read 0 512'));
});

t.test('threads write to a grain only after the session has begun', async (t) => {
  const path = join(t.testdir(), 'a.vmdk');
  await writeFile(path, hostedVmdk(new Map([[0, Buffer.alloc(GRAIN, 1)]]), { size: MIB, redundant: true }).bytes);
  const raw = await openTreeDisk(graphOf(path), false);
  const counts: Served = { byMap: 0, byDriver: 0 };
  const disk = frontDisk(byMap(raw, counts), { readOnly: false });
  const write = async (): Promise<boolean> => {
    const before = counts.byMap;
    await disk.write(Buffer.alloc(512, 2), 512);
    return counts.byMap > before;
  };
  const read = (): Promise<number> => disk.read(Buffer.alloc(GRAIN), 0);
  for (let i = 0; i < 3; i++) await read();
  t.equal(counts.byMap, 2, 'reads are served by the map at once');
  t.equal(await write(), false);
  await new Promise(setImmediate);
  for (let i = 0; i < 2; i++) await read();
  t.equal(await write(), true);
  await disk.close();
});

t.test('copies of tables after a crash', async (t) => {
  const fields = { size: 40 * 4096, ...small, allTables: true };
  const grains = new Map([1, 20].map((grain) => [grain, Buffer.alloc(4096, grain)]));
  const image = hostedVmdk(grains, fields).bytes;
  const copies = Number(image.readBigUInt64LE(48)) * 512;
  const copy = image.readUInt32LE(copies) * 512;
  const table = image.readUInt32LE(Number(image.readBigUInt64LE(56)) * 512) * 512;
  const cases: [what: string, change: (bytes: Buffer) => void, clean: RegExp | null, unclean: RegExp | null][] = [
    ['alike', () => {}, null, null],
    ['the copy is behind', (bytes) => bytes.writeUInt32LE(0, copy + 4), null, null],
    [
      'the copy is ahead',
      (bytes) => bytes.writeUInt32LE(bytes.readUInt32LE(copy + 4) + 64, copy + 8),
      /the copy of grain table 0 names other places/,
      null,
    ],
    ['a table without a copy', (bytes) => bytes.writeUInt32LE(0, copies + 4), /no copy/, /no copy/],
    [
      'two grains at one place',
      (bytes) => bytes.writeUInt32LE(bytes.readUInt32LE(table + 4), table + 8),
      /overlap at byte/,
      /overlap at byte/,
    ],
    ['a grain over a directory', (bytes) => bytes.writeUInt32LE(2, table + 8), /overlap at byte/, /overlap at byte/],
    ['a grain outside', (bytes) => bytes.writeUInt32LE(0x100000, table + 8), /is not inside/, /is not inside/],
  ];
  for (const [what, change, whenClean, whenUnclean] of cases) {
    for (const [unclean, refusal] of [whenClean, whenUnclean].entries()) {
      await t.test(`${what}, ${unclean === 1 ? 'not closed' : 'closed'}`, (t) =>
        tryCopies(t, { image, change, unclean, refusal, table, copy }),
      );
    }
  }
});

interface CopyCase {
  readonly image: Buffer;
  readonly change: (bytes: Buffer) => void;
  readonly unclean: number;
  readonly refusal: RegExp | null;
  readonly table: number;
  readonly copy: number;
}

async function tryCopies(t: Test, { image, change, unclean, refusal, table, copy }: CopyCase): Promise<void> {
  const bytes = Buffer.from(image);
  change(bytes);
  bytes[72] = unclean;
  const path = join(t.testdir(), 'a.vmdk');
  await writeFile(path, bytes);
  const checked = await vmdkExaminer.checker.check(diskOf(bytes));
  t.equal(checked.corruptionCount > 0, refusal !== null, checked.corruptions.join());
  if (refusal !== null) {
    await t.rejects(openImageDisk('vmdk', path), { code: 'FAILED', message: refusal });
    t.ok((await readFile(path)).equals(bytes), 'nothing was changed');
    return;
  }
  await (await openImageDisk('vmdk', path)).close();
  const repaired = await readFile(path);
  t.equal(repaired[72], 0);
  t.ok(repaired.subarray(table, table + 64).equals(repaired.subarray(copy, copy + 64)));
  t.ok(repaired.subarray(table, table + 64).equals(image.subarray(table, table + 64)));
  t.match(await vmdkExaminer.checker.check(diskOf(repaired)), { isDirty: false, corruptionCount: 0 });
}

t.test('what is only read says why', { skip }, async (t) => {
  const directory = t.testdir();
  const path = join(directory, 'a.vmdk');
  const refuse = async (fields: Partial<SparseFields>, message: RegExp): Promise<void> => {
    await writeFile(path, hostedVmdk(new Map(), { size: MIB, ...fields }).bytes);
    await t.rejects(openImageDisk('vmdk', path), { code: 'DENIED', message, hint: /mode r.*--snapshot/ });
    await (await openImageDisk('vmdk', path, true)).close();
  };
  await refuse({ version: 3 }, /version 3 can only be read/);
  await refuse({ flags: 0x11 }, /version 1 can only be read/);
  await refuse({ grainBytes: 2048 }, /sizes of grains and tables/);
  await refuse({ grainBytes: 4 * MIB }, /sizes of grains and tables/);
  const settings = ['changeTrackPath="a-ctk.vmdk"'];
  await refuse({ descriptor: vmdkDescriptor(['RW 2048 SPARSE "a"'], { settings }) }, /tracked/);
  qemuImg('create', '-q', '-f', 'vmdk', '-o', 'subformat=twoGbMaxExtentSparse', join(directory, 'split.vmdk'), '5M');
  await t.rejects(openImageDisk('vmdk', join(directory, 'split.vmdk')), { code: 'DENIED', message: /in other files/ });
  await copyFile(await make(join(directory, 'good.vmdk'), MIB), path);
  await (await openImageDisk('vmdk', path)).close();
});

t.test('the check of VMDKs that are only read', async (t) => {
  const check = (bytes: Buffer) => vmdkExaminer.checker.check(diskOf(bytes));
  const grains = new Map([0, 3].map((grain) => [grain, Buffer.alloc(GRAIN, grain)]));
  const stream = streamVmdk(grains, { size: MIB }).bytes;
  t.match(await check(stream), { corruptions: [], clusters: { total: 16, allocated: 2, compressed: 2 } });
  const inOva = Buffer.concat([tarMember('a.vmdk', stream), tarEnd]);
  t.match(await check(inOva), { corruptions: [], clusters: { compressed: 2 } });
  t.match(await check(hostedVmdk(grains, { size: MIB, descriptor: null }).bytes), { clusters: { allocated: 2 } });
  const flat = vmdkDescriptor(['RW 2048 FLAT "a" 0']);
  await t.rejects(check(flat), { code: 'UNSUPPORTED', operation: 'no check' });
  const damaged = hostedVmdk(new Map<number, Grain>([[1, { entry: 0x10_0000 }]]), { size: MIB }).bytes;
  t.match(await check(damaged), { corruptions: [/grain 1 at byte 536870912 is outside/] });
  await t.rejects(vmdkExaminer.checker.repairLeaks(diskOf(damaged), {}), { code: 'DENIED' });
});
