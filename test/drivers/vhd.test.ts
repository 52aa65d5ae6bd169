import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { frontDisk } from '../../drivers/disk.js';
import creator from '../../drivers/vhd/create.js';
import examiner from '../../drivers/vhd/examine.js';
import { byMap, type Served } from '../conformance/by-map.js';
import { patternBytes, pieceBytes } from '../conformance/pattern.js';
import { type DiskFactory, diskSuite } from '../conformance/suite.js';
import { bySyncCalls } from '../conformance/sync-calls.js';
import { whyNot } from '../e2e/fixtures.js';
import { randomNumbers, seedOf } from '../rules/random.js';
import { diskOf } from './formats/image-bytes.js';
import { type Builder, graphFactory, makeFile, openImageDisk, openTreeDisk } from './graph-factory.js';
import { dynamicVhd, vhdFooter } from './images/vhd.js';
import { compareWithQemu, qemuImg, qemuIo, qemuSize, whyNoQemu } from './qemu.js';

const MIB = 1 << 20;
const abilities = { maxSizeBytes: 2 ** 42, holes: true, shrink: true };
t.setTimeout(600_000);

const builder =
  (footerBytes: number): Builder =>
  async (size, directory) => {
    const path = join(directory, 'disk.vhd');
    await makeFile(path, size + footerBytes, [size, vhdFooter({ size, bytes: footerBytes })]);
    return {
      graph: { driver: 'vhd', options: {}, on: { file: { file: path } } },
      runs: [{ path, offset: 0, start: 0, size }],
    };
  };

diskSuite({ name: 'vhd', test: t, factory: graphFactory(builder(512)), abilities });
const inThread = graphFactory(builder(511), { wrap: bySyncCalls });
diskSuite({ name: 'vhd with an old footer, in a thread', test: t, factory: inThread, abilities });

t.test('nothing is written over the footer', async (t) => {
  for (const bytes of [512, 511]) {
    const size = 3 * MIB;
    const footer = vhdFooter({ size, bytes });
    const path = await makeFile(join(t.testdir(), 'disk.vhd'), size + bytes, [size, footer]);
    const disk = await openImageDisk('vhd', path);
    t.equal(disk.size, size);
    t.equal(await disk.write(Buffer.alloc(2 * MIB, 1), size - 100), 100, 'a write is cut at the end');
    await disk.zero(0, size + 4096, { punch: true });
    await t.rejects(disk.write(Buffer.alloc(1), size), { code: 'NO_SPACE' });
    await disk.close();
    const file = await readFile(path);
    t.equal(file.length, size + bytes);
    t.ok(file.subarray(size).equals(footer));
  }
});

t.test('the size is the current size, also if there is more room', async (t) => {
  const footer = vhdFooter({ size: 1000 });
  const disk = await openImageDisk('vhd', await makeFile(join(t.testdir(), 'a.vhd'), 4096 + 512, [4096, footer]));
  t.equal(disk.size, 1000);
  await disk.close();
});

t.test('a hidden image, the base of others, is only read', async (t) => {
  const footer = vhdFooter({ size: 4096, hidden: 1 });
  const path = await makeFile(join(t.testdir(), 'a.vhd'), 4096 + 512, [4096, footer]);
  await t.rejects(openImageDisk('vhd', path), { code: 'DENIED', hint: /mode r/ });
  const disk = await openImageDisk('vhd', path, true);
  t.equal(disk.size, 4096);
  await disk.close();
});

t.test('images of QEMU', { skip: whyNoQemu() }, async (t) => {
  const path = join(t.testdir(), 'disk.vhd');
  await t.test('have the same size and bytes here', async (t) => {
    qemuImg('create', '-q', '-f', 'vpc', '-o', 'subformat=fixed,force_size', path, '5M');
    qemuIo('vpc', path, 'write -P 0x41 4096 1M');
    const disk = await openImageDisk('vhd', path);
    t.equal(disk.size, qemuSize('vpc', path));
    t.equal(disk.size, 5 * MIB);
    await compareWithQemu('vpc', path, disk);
    await disk.close();
  });
  await t.test('are written here and read there', async () => {
    const disk = await openImageDisk('vhd', path);
    await disk.write(Buffer.alloc(8192, 0x42), 5 * MIB - 8192);
    await disk.write(patternBytes(0, 3000, 1), 0);
    await disk.flush();
    qemuIo('vpc', path, `read -P 0x42 ${5 * MIB - 8192} 8192`);
    qemuIo('vpc', path, 'read -P 0x41 4096 1M');
    await compareWithQemu('vpc', path, disk);
    await disk.close();
  });
  await t.test('of a size that fits no geometry are whole', async (t) => {
    const rounded = join(t.testdir(), 'rounded.vhd');
    qemuImg('create', '-q', '-f', 'vpc', '-o', 'subformat=fixed', rounded, '10000K');
    const disk = await openImageDisk('vhd', rounded);
    t.equal(disk.size, qemuSize('vpc', rounded));
    await disk.close();
  });
  await t.test('that are dynamic have the same bytes here, and are written as QEMU writes them', async (t) => {
    const dynamic = join(t.testdir(), 'dynamic.vhd');
    qemuImg('create', '-q', '-f', 'vpc', '-o', 'force_size', dynamic, '9M');
    qemuIo('vpc', dynamic, 'write -P 0x41 5M 1M');
    qemuIo('vpc', dynamic, 'write -P 0x42 1000k 100k');
    const disk = await openImageDisk('vhd', dynamic);
    t.equal(disk.size, qemuSize('vpc', dynamic));
    await compareWithQemu('vpc', dynamic, disk);
    await disk.write(patternBytes(0, 3000, 1), 5 * MIB - 1000);
    await disk.write(patternBytes(0, MIB + 5, 2), 8 * MIB - 5);
    await disk.zero(5 * MIB + 1000, MIB, { punch: true });
    await disk.close();
    const again = await openImageDisk('vhd', dynamic, true);
    await compareWithQemu('vpc', dynamic, again);
    await again.close();
    await checkWithLibvhdi(t, dynamic);
    const file = await open(dynamic, 'r+');
    await file.truncate((await file.stat()).size - 512);
    await file.close();
    const crashed = await openImageDisk('vhd', dynamic);
    await crashed.close();
    t.match((await readFile(dynamic)).subarray(-512, -504).toString(), 'conectix', 'the footer is there again');
    await checkWithLibvhdi(t, dynamic);
    const qcow2 = join(t.testdir(), 'a.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', qcow2, '5M');
    await t.rejects(openImageDisk('vhd', qcow2), {
      code: 'USAGE',
      message: 'it is not a VHD image: it is a qcow2 image',
    });
  });
});

/** libvhdi must see the same disk. */
async function checkWithLibvhdi(t: Test, path: string): Promise<void> {
  if (spawnSync('vhdimount', ['-V']).error !== undefined || whyNot('fusermount3') !== false) return;
  const mount = await mkdtemp(join(tmpdir(), 'vhdi-'));
  try {
    execFileSync('vhdimount', [path, mount], { stdio: 'ignore' });
    const layers = (await readdir(mount)).length;
    const theirs = execFileSync('sha256sum', [join(mount, `vhdi${layers}`)], { encoding: 'utf8' }).slice(0, 64);
    const graph = { driver: 'vhd', options: {}, on: { file: { file: path } } };
    const disk = frontDisk(await openTreeDisk(graph, true), { readOnly: true });
    const hash = createHash('sha256');
    for (let at = 0; at < disk.size; at += MIB) {
      const bytes = Buffer.alloc(Math.min(MIB, disk.size - at));
      await disk.read(bytes, at);
      hash.update(bytes);
    }
    await disk.close();
    t.equal(hash.digest('hex'), theirs, 'libvhdi reads the same bytes');
  } finally {
    spawnSync('fusermount', ['-u', mount]);
    await rm(mount, { recursive: true, force: true });
  }
}

t.test('libvhdi reads the same bytes of a chain that was written here', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'chain-'));
  t.teardown(() => rm(directory, { recursive: true }));
  const random = randomNumbers(seedOf(t));
  const size = 12 * MIB;
  const make = async (name: string, below: string | null): Promise<string> => {
    const path = join(directory, name);
    const identity = below === null ? null : (await readFile(join(directory, below))).toString('hex', 68, 84);
    const backing = below === null ? null : { name: below, format: 'vpc', identity };
    const file = await open(path, 'w+');
    await creator.write(file.fd, { size, backing, options: {} });
    await file.close();
    const disk = frontDisk(await openTreeDisk({ driver: 'vhd', options: {}, on: { file: { file: path } } }, false), {
      readOnly: false,
    });
    for (let i = 0; i < 60; i++) {
      const at = random(size);
      const length = Math.min(size - at, 1 + random(i % 10 === 0 ? 3 * MIB : 20_000));
      if (i % 5 === 4) await disk.zero(at, length, { punch: i % 2 === 0 });
      else await disk.write(patternBytes(at, length, i), at);
    }
    await disk.close();
    return path;
  };
  await make('one.vhd', null);
  await make('two.vhd', 'one.vhd');
  await checkWithLibvhdi(t, await make('three.vhd', 'two.vhd'));
});

t.test('a last block that a crash has cut gets its room, and the footer behind it', async (t) => {
  const path = join(t.testdir(), 'cut.vhd');
  const bits = Buffer.alloc(512);
  bits[0] = 0b1000_0000;
  const data = patternBytes(0, 4096, 3);
  const whole = dynamicVhd({ size: 3 * 4096, hasFooter: false, placed: [{ block: 1, bits, data }] });
  await writeFile(path, whole.subarray(0, whole.length - 3072));
  const disk = await openImageDisk('vhd', path);
  await disk.write(Buffer.alloc(2048, 9), 4096 + 2048);
  await disk.write(Buffer.alloc(100, 8), 0);
  await disk.close();
  const file = await readFile(path);
  t.ok(file.subarray(-512).equals(file.subarray(0, 512)), 'the footer is at the end');
  const again = await openImageDisk('vhd', path, true);
  const seen = Buffer.alloc(3 * 4096);
  await again.read(seen, 0);
  await again.close();
  const expected = Buffer.alloc(3 * 4096);
  expected.fill(8, 0, 100);
  data.copy(expected, 4096, 0, 512);
  expected.fill(9, 4096 + 2048, 2 * 4096);
  t.ok(seen.equals(expected));
});

t.test('what is behind the size by the geometry keeps the bytes of the parent', async (t) => {
  const directory = t.testdir({ 'base.img': Buffer.alloc(16 * 4096, 0x55) });
  const path = join(directory, 'child.vhd');
  const locators = [{ code: 'MacX', name: Buffer.from('file://./base.img') }];
  const shape = { size: 16 * 4096, type: 4, parentUuid: '00'.repeat(16), blockBytes: 16_384, locators };
  // 120 of 128 sectors
  await writeFile(path, dynamicVhd({ ...shape, geometry: [10, 4, 3] }));
  const open = async (options: Record<string, string>) =>
    frontDisk(await openTreeDisk({ driver: 'vhd', options, on: { file: { file: path } } }, false), { readOnly: false });
  const small = await open({ size: 'geometry' });
  t.equal(small.size, 120 * 512);
  await small.write(Buffer.alloc(small.size - 3 * 16_384, 7), 3 * 16_384);
  await small.zero(2 * 16_384, small.size - 2 * 16_384, { punch: true });
  await small.close();
  const large = await open({});
  const rest = Buffer.alloc(8 * 512);
  await large.read(rest, 120 * 512);
  await large.close();
  t.ok(rest.equals(Buffer.alloc(8 * 512, 0x55)));
});

/** The blocks that an image has. */
async function blocksOf(path: string, blocks: number): Promise<number[]> {
  const bytes = await readFile(path);
  return Array.from({ length: blocks }, (_, block) => block).filter(
    (block) => bytes.readUInt32BE(1536 + 4 * block) !== 0xffff_ffff,
  );
}

t.test('zeros take no block where the parent has zeros', async (t) => {
  const BLOCK = 128 << 10;
  const blocks = 8;
  const size = blocks * BLOCK - 1536;
  const raw = { code: 'MacX', name: Buffer.from('file://./base.img') };
  const other = { code: 'MacX', name: Buffer.from('file://./base.vhd') };
  const bits = Buffer.alloc(512);
  bits[0] = 0b0100_0000;
  const lastByte = Buffer.alloc(BLOCK);
  lastByte[BLOCK - 1] = 1;
  const zeros = Buffer.alloc(BLOCK);
  const data = Buffer.alloc(BLOCK, 5);
  for (const [kind, locator, parentUuid, inBase] of [
    ['a VHD', other, '5a'.repeat(16), [1, 4]],
    ['a raw image that ends in the middle of a block', raw, '00'.repeat(16), [1, 4, 6]],
  ] as const) {
    for (const punch of [true, false]) {
      const base = [
        { block: 1, data },
        { block: 2, data: zeros },
        { block: 4, data: lastByte },
        { block: 5, data },
      ];
      const directory = t.testdir({ 'base.vhd': dynamicVhd({ size, blockBytes: BLOCK, placed: base }) });
      const image = Buffer.alloc(6 * BLOCK + 3000);
      for (const { block, data: bytes } of base) bytes.copy(image, block * BLOCK);
      image[image.length - 1] = 9;
      await writeFile(join(directory, 'base.img'), image);
      execFileSync('fallocate', ['-d', join(directory, 'base.img')]);
      const path = join(directory, 'child.vhd');
      const placed = [{ block: 5, bits, data }];
      const child = { size, blockBytes: BLOCK, type: 4, parentUuid, locators: [locator], placed };
      await writeFile(path, dynamicVhd(child));
      const graph = { driver: 'vhd', options: {}, on: { file: { file: path } } };
      const disk = frontDisk(await openTreeDisk(graph, false), { readOnly: false });
      await disk.zero(0, BLOCK, { punch });
      await disk.zero(2 * BLOCK + 100, 5000, { punch });
      await disk.zero(4 * BLOCK + 512, BLOCK - 1024, { punch });
      t.same(await blocksOf(path, blocks), [5], `${kind}: parts that are zeros`);
      await disk.zero(0, size, { punch });
      const seen = Buffer.alloc(size, 1);
      await disk.read(seen, 0);
      t.ok(seen.equals(Buffer.alloc(size)), `${kind}: all is zeros`);
      await disk.close();
      t.same(await blocksOf(path, blocks), [...inBase, 5].sort(), `${kind}: only what hides data has a block`);
      t.same((await examiner.checker.check(diskOf(await readFile(path)))).corruptions, []);
    }
  }
});

/** Every other block is there, in the reverse order; over a parent, with some sectors only. */
async function makeDynamic(directory: string, size: number, blockBytes: number, isChild: boolean): Promise<string> {
  const path = join(directory, 'disk.vhd');
  const blocks = Math.ceil(size / blockBytes);
  const all = Array.from({ length: Math.min(blocks, 64) }, (_, i) => Math.min(blocks, 64) - 1 - i);
  const placed = all.filter((block) => block % 2 === 0).map((block) => ({ block, data: Buffer.alloc(blockBytes) }));
  const common = { size, blockBytes };
  if (!isChild) {
    await writeFile(path, dynamicVhd({ ...common, placed }));
    // so that the zeros of the blocks are holes
    execFileSync('fallocate', ['-d', path]);
    return path;
  }
  await writeFile(join(directory, 'base.vhd'), dynamicVhd({ ...common, placed }));
  const name = Buffer.from('.\\base.vhd', 'utf16le');
  const child = { type: 4, parentUuid: '5a'.repeat(16), locators: [{ code: 'W2ru', name }] };
  await writeFile(path, dynamicVhd({ ...common, ...child }));
  return path;
}

const tabled =
  (blockBytes: number, isChild: boolean, counts?: Served): DiskFactory =>
  async ({ size, pieces, readOnly }) => {
    const directory = await mkdtemp(join(tmpdir(), 'vhd-'));
    const path = await makeDynamic(directory, size, blockBytes, isChild);
    const graph = { driver: 'vhd', options: {}, on: { file: { file: path } } };
    // the first half of the bytes is in the base
    for (const [i, piece] of pieces.entries()) {
      const file = isChild && i < pieces.length / 2 ? join(directory, 'base.vhd') : path;
      const raw = await openTreeDisk({ ...graph, on: { file: { file } } }, false);
      const disk = frontDisk(raw, { readOnly: false });
      await disk.write(pieceBytes(piece), piece.offset);
      await disk.close();
    }
    const reopen = async () => {
      const disk = await openTreeDisk(graph, readOnly);
      return counts === undefined ? disk : byMap(disk, counts);
    };
    return { raw: await reopen(), reopen, dispose: () => rm(directory, { recursive: true }) };
  };

for (const [blockBytes, isChild] of [
  [4096, false],
  [2 * MIB, false],
  [4096, true],
  [64 * 1024, true],
] as const) {
  const name = `vhd with blocks of ${blockBytes}${isChild ? ', over a parent' : ''}`;
  const able = { maxSizeBytes: blockBytes * 4096, holes: !isChild, shrink: false };
  diskSuite({ name, test: t, factory: tabled(blockBytes, isChild), abilities: able, runs: 3 });
  const counts: Served = { byMap: 0, byDriver: 0 };
  const factory = tabled(blockBytes, isChild, counts);
  diskSuite({ name: `${name}, by its map`, test: t, factory, abilities: able, runs: 3 });
  t.test(`the map of ${name} served some of it`, async (t) => {
    t.ok(counts.byMap > 50, `${counts.byMap} requests by the map, ${counts.byDriver} by the driver`);
  });
}
