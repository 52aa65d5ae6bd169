/**
 * Bugs that other programs had with VHD, VHDX, VDI and VMDK images: each has a row with its smallest input, which must be
 * served right, or refused. Other tests have the bugs that are not here: hostile images, kills, chains, images of QEMU.
 */
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Disk, frontDisk } from '../../drivers/disk.js';
import vhdCreator from '../../drivers/vhd/create.js';
import vhdExaminer from '../../drivers/vhd/examine.js';
import { patternBytes } from '../conformance/pattern.js';
import { diskOf } from './formats/image-bytes.js';
import { openImageDisk, openTreeDisk } from './graph-factory.js';
import { vdiHead } from './images/vdi.js';
import { type DynamicFields, dynamicVhd, vhdFooter } from './images/vhd.js';
import { vmdkDescriptor } from './images/vmdk.js';
import { plainImage } from './vhdx/over.js';

const BLOCK = 4096;
const UUID = '5a'.repeat(16);
const NO_UUID = '00'.repeat(16);
const TABLE_AT = 1536;

interface Row {
  /** the program, and where its bug is told */
  readonly of: string;
  readonly rule: string;
  test(t: Test, directory: string): Promise<void>;
}

async function openVhd(path: string, readOnly = false): Promise<Disk> {
  const graph = { driver: 'vhd', options: {}, on: { file: { file: path } } };
  return frontDisk(await openTreeDisk(graph, readOnly), { readOnly });
}

async function bytesOf(disk: Disk): Promise<Buffer> {
  const bytes = Buffer.alloc(disk.size, 0x77);
  await disk.read(bytes, 0);
  return bytes;
}

/** Writes an image. @returns its path */
async function put(directory: string, name: string, bytes: Buffer): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, bytes);
  return path;
}

const locatorOf = (name: string) => ({ code: 'MacX', name: Buffer.from(`file://./${name}`) });

const childOf = (name: string, parentUuid: string, fields: Partial<DynamicFields> = {}): Buffer =>
  dynamicVhd({ size: 5 * BLOCK, type: 4, parentUuid, locators: [locatorOf(name)], ...fields });

const ROWS: readonly Row[] = [
  {
    of: 'cloud-hypervisor 8311, deaa424fc',
    rule: 'a VHD that is shorter than its footer, or than the size in it, is refused',
    async test(t, directory) {
      const footer = vhdFooter({ size: 8192 });
      const inputs = [footer.subarray(0, 300), footer, Buffer.concat([Buffer.alloc(8191), footer])];
      for (const bytes of inputs) {
        const path = await put(directory, 'a.vhd', bytes);
        await t.rejects(openImageDisk('vhd', path), { name: 'FusetapError' }, `${bytes.length} bytes`);
      }
    },
  },
  {
    of: 'QEMU 7.2 (vpc)',
    rule: 'the first block is written over neither the batmap nor a locator',
    async test(t, directory) {
      await put(directory, 'base.vhd', dynamicVhd({ size: 5 * BLOCK }));
      const before = childOf('base.vhd', UUID, { hasBatmap: true });
      const path = await put(directory, 'child.vhd', before);
      const disk = await openVhd(path);
      await disk.write(patternBytes(0, BLOCK, 1), BLOCK);
      await disk.close();
      const after = await readFile(path);
      const [from, to] = [TABLE_AT + 512, before.length - 512];
      t.ok(after.subarray(from, to).equals(before.subarray(from, to)));
      t.ok(after.readUInt32BE(TABLE_AT + 4) * 512 >= to);
    },
  },
  {
    of: 'QEMU 7.2 (vpc)',
    rule: 'bytes of a block whose bits are clear are not shown: the parent is, or zeros',
    async test(t, directory) {
      const parent = { block: 1, data: Buffer.alloc(BLOCK, 0x41) };
      const stale = { block: 1, bits: Buffer.alloc(512), data: Buffer.alloc(BLOCK, 0xee) };
      await put(directory, 'base.vhd', dynamicVhd({ size: 5 * BLOCK, placed: [parent] }));
      const path = await put(directory, 'child.vhd', childOf('base.vhd', UUID, { placed: [stale] }));
      const child = await openVhd(path);
      t.ok((await bytesOf(child)).subarray(BLOCK, 2 * BLOCK).equals(parent.data));
      await child.write(Buffer.alloc(512, 7), BLOCK + 512);
      const expected = Buffer.from(parent.data).fill(7, 512, 1024);
      t.ok((await bytesOf(child)).subarray(BLOCK, 2 * BLOCK).equals(expected), 'also after a write to the block');
      await child.close();
      const alone = await openVhd(await put(directory, 'a.vhd', dynamicVhd({ size: 5 * BLOCK, placed: [stale] })));
      t.ok((await bytesOf(alone)).equals(Buffer.alloc(5 * BLOCK)));
      await alone.close();
    },
  },
  {
    of: 'blktap 1407cca, azure-vhd-utils 39',
    rule: 'a last block that is cut counts as a block, and does not make the disk larger',
    async test(t, directory) {
      const path = join(directory, 'a.vhd');
      const size = (4 << 20) + 512;
      const file = await open(path, 'w+');
      await vhdCreator.write(file.fd, { size, backing: null, options: {} });
      await file.close();
      t.equal((await readFile(path)).readUInt32BE(512 + 28), 3, 'entries of the table');
      const disk = await openVhd(path);
      t.equal(disk.size, size);
      await disk.write(patternBytes(0, 512, 3), size - 512);
      t.equal(await disk.write(Buffer.alloc(1024, 1), size - 512), 512, 'nothing is written behind the size');
      await disk.close();
    },
  },
  {
    of: 'blktap 5eba634',
    rule: 'an entry that names the headers is refused',
    async test(t, directory) {
      for (const entry of [0, 1, 2, 3]) {
        const bytes = dynamicVhd({ size: 5 * BLOCK, placed: [{ block: 1, data: Buffer.alloc(BLOCK) }] });
        bytes.writeUInt32BE(entry, TABLE_AT);
        const path = await put(directory, 'a.vhd', bytes);
        await t.rejects(openVhd(path), { code: 'FAILED', message: /block 0 .* overlaps/ }, `entry ${entry}`);
        const disk = await openVhd(path, true);
        await t.rejects(disk.read(Buffer.alloc(512), 0), { code: 'FAILED' });
        await disk.close();
      }
    },
  },
  {
    of: 'blktap b3547d2',
    rule: 'blocks of 512 KiB are blocks of 512 KiB',
    async test(t, directory) {
      const blockBytes = 512 << 10;
      const placed = [2, 0].map((block) => ({ block, data: patternBytes(0, blockBytes, block) }));
      const path = await put(directory, 'a.vhd', dynamicVhd({ size: 4 * blockBytes, blockBytes, placed }));
      const disk = await openVhd(path);
      await disk.write(patternBytes(0, 5000, 9), 3 * blockBytes - 2500);
      const expected = Buffer.alloc(4 * blockBytes);
      for (const { block, data } of placed) data.copy(expected, block * blockBytes);
      patternBytes(0, 5000, 9).copy(expected, 3 * blockBytes - 2500);
      t.ok((await bytesOf(disk)).equals(expected));
      await disk.close();
    },
  },
  {
    of: 'blktap 751ea7f, 57ee889',
    rule: 'sector numbers do not wrap at 2 TiB: reads fail, and a new block finds no space',
    async test(t, directory) {
      const blockBytes = 2 << 20;
      const fields = { size: 5 * blockBytes, blockBytes };
      const last = 0xffff_fffe;
      const bytes = dynamicVhd(fields);
      bytes.writeUInt32BE(last, TABLE_AT);
      const path = await put(directory, 'a.vhd', bytes);
      const disk = await openVhd(path, true);
      await t.rejects(disk.read(Buffer.alloc(512), 0), { code: 'FAILED', message: /block 0 is said to be at byte/ });
      await disk.close();
      // the block is there, and ends where no entry can name a sector any more
      const start = 0xffff_ffff * 512 - 512 - blockBytes;
      bytes.writeUInt32BE(start / 512, TABLE_AT);
      await put(directory, 'a.vhd', bytes);
      const file = await open(path, 'r+');
      await file.truncate(start + 512 + blockBytes + 512);
      await file.close();
      const full = await openVhd(path);
      await full.read(Buffer.alloc(512), 0);
      await t.rejects(full.write(Buffer.alloc(512, 1), blockBytes), { code: 'NO_SPACE', message: /2 TiB/ });
      await full.write(Buffer.alloc(512, 1), 0);
      await full.close();
    },
  },
  {
    of: 'blktap 219d0c2',
    rule: 'many first writes at the same time all end, each with a block of its own',
    async test(t, directory) {
      const count = 300;
      const vhd = await put(directory, 'a.vhd', dynamicVhd({ size: count * BLOCK }));
      const map = Array.from({ length: count }, () => 0xffff_ffff);
      const { head, dataStart } = vdiHead({ size: count * BLOCK, blockBytes: BLOCK, type: 1, map });
      head.writeUInt32LE(0, 388);
      const vdi = await put(directory, 'a.vdi', Buffer.concat([head], dataStart));
      for (const [driver, path] of [
        ['vhd', vhd],
        ['vdi', vdi],
      ] as const) {
        const disk = await openImageDisk(driver, path);
        const blocks = Array.from({ length: count }, (_, block) => block);
        await Promise.all(blocks.map((block) => disk.write(patternBytes(0, 1000, block), block * BLOCK + 100)));
        const expected = Buffer.alloc(count * BLOCK);
        for (const block of blocks) patternBytes(0, 1000, block).copy(expected, block * BLOCK + 100);
        t.ok((await bytesOf(disk)).equals(expected), driver);
        await disk.close();
      }
      t.same((await vhdExaminer.checker.check(diskOf(await readFile(vhd)))).corruptions, []);
    },
  },
  {
    of: 'blktap fb53ab3 (VHDs of old QEMU without an id)',
    rule: 'a VHD without an id is served; over it, an image must not take its bytes for a raw image',
    async test(t, directory) {
      const base = dynamicVhd({ size: 5 * BLOCK, placed: [{ block: 1, data: Buffer.alloc(BLOCK, 0x41) }] });
      for (const at of [0, base.length - 512]) withoutId(base.subarray(at, at + 512));
      const path = await put(directory, 'base.vhd', base);
      const disk = await openVhd(path, true);
      t.equal((await bytesOf(disk))[BLOCK], 0x41);
      await disk.close();
      const child = await put(directory, 'child.vhd', childOf('base.vhd', NO_UUID));
      await t.rejects(openVhd(child, true), { code: 'FAILED', message: /raw image, and that ends as a VHD/ });
      const file = { file: child };
      const stated = { driver: 'vhd', options: {}, on: { file: { file: path } } };
      const tree = await openTreeDisk({ driver: 'vhd', options: {}, on: { file, backing: stated } }, true);
      const over = frontDisk(tree, { readOnly: true });
      t.equal((await bytesOf(over))[BLOCK], 0x41, 'a tree that says so is served');
      await over.close();
      const wish = { size: BLOCK, options: {}, backing: { name: 'base.vhd', format: 'vpc', identity: NO_UUID } };
      t.throws(() => vhdCreator.check(wish), { message: /no unique id/ }, 'and such an image is not made');
      const raw = await put(directory, 'base.img', Buffer.alloc(5 * BLOCK, 0x42));
      const overRaw = await openVhd(await put(directory, 'c.vhd', childOf('base.img', NO_UUID)), true);
      t.ok((await bytesOf(overRaw)).equals(await readFile(raw)));
      await overRaw.close();
    },
  },
  {
    of: 'blktap d5bf987',
    rule: 'images below one another may each be smaller: what is behind their ends is zeros',
    async test(t, directory) {
      const data = Buffer.alloc(BLOCK, 0x41);
      await put(directory, 'one.img', Buffer.alloc(BLOCK + 700, 0x40));
      const two = childOf('one.img', NO_UUID, { size: 3 * BLOCK, placed: [{ block: 2, data }] });
      await put(directory, 'two.vhd', two);
      const disk = await openVhd(await put(directory, 'three.vhd', childOf('two.vhd', UUID)));
      const expected = Buffer.concat([Buffer.alloc(BLOCK + 700, 0x40)], 5 * BLOCK);
      data.copy(expected, 2 * BLOCK);
      t.ok((await bytesOf(disk)).equals(expected));
      await disk.write(Buffer.alloc(100, 1), 4 * BLOCK + 50);
      expected.fill(1, 4 * BLOCK + 50, 4 * BLOCK + 150);
      t.ok((await bytesOf(disk)).equals(expected));
      await disk.close();
    },
  },
  {
    of: 'blktap (vhd-util)',
    rule: 'a locator that is longer than its space, or than the image, is refused',
    async test(t, directory) {
      for (const [space, length] of [
        [512, 0xffff_ffff],
        [512, 513],
        [0xffff_ffff, 20],
      ] as const) {
        const bytes = childOf('base.vhd', UUID, { locators: [{ ...locatorOf('base.vhd'), space }] });
        bytes.writeUInt32BE(length, 512 + 576 + 8);
        sealHeader(bytes);
        const path = await put(directory, 'a.vhd', bytes);
        await t.rejects(openVhd(path, true), { code: 'FAILED', message: /locator/ }, `${length} of ${space}`);
      }
    },
  },
  {
    of: 'libvhdi 17',
    rule: 'a new VHDX, and a new VHD, read as zeros',
    async test(t, directory) {
      const path = await put(directory, 'a.vhdx', plainImage({ bat: [0n, 0n, 0n] }));
      const disk = await openImageDisk('vhdx', path, true);
      t.ok((await bytesOf(disk)).equals(Buffer.alloc(disk.size)));
      await disk.close();
      const vhd = await openVhd(await put(directory, 'a.vhd', dynamicVhd({ size: 5 * BLOCK })), true);
      t.ok((await bytesOf(vhd)).equals(Buffer.alloc(5 * BLOCK)));
      await vhd.close();
    },
  },
  {
    of: 'dissect',
    rule: 'a VHDX whose header has a wrong checksum is not read by that header',
    async test(t, directory) {
      const bytes = plainImage();
      // bytes that no field has
      for (const at of [64 << 10, 128 << 10]) bytes.writeUInt8(1, at + 2000);
      const path = await put(directory, 'a.vhdx', bytes);
      await t.rejects(openImageDisk('vhdx', path, true), { message: /neither of its headers/ });
    },
  },
  {
    of: 'QEMU 7.2.8',
    rule: 'a write to a VMDK leaves a large descriptor as it is',
    async test(t, directory) {
      const names = Array.from({ length: 120 }, (_, i) => `${'long-'.repeat(30)}${i}.vmdk`);
      for (const name of names) await put(directory, name, Buffer.alloc(512));
      const lines = names.map((name) => `RW 1 FLAT "${name}" 0`);
      const descriptor = vmdkDescriptor(lines, { type: 'twoGbMaxExtentFlat' });
      t.ok(descriptor.length > 20_000, `${descriptor.length} bytes`);
      const path = await put(directory, 'disk.vmdk', descriptor);
      const disk = await openImageDisk('vmdk', path);
      await disk.write(patternBytes(0, 30 * 512, 4), 50 * 512);
      await disk.flush();
      await disk.close();
      t.ok((await readFile(path)).equals(descriptor));
      t.ok((await readFile(join(directory, names[79] as string))).equals(patternBytes(0, 30 * 512, 4).subarray(-512)));
    },
  },
  {
    of: 'dosbox-x 4545',
    rule: 'zeros that are written over a parent hide it',
    async test(t, directory) {
      await put(directory, 'base.img', Buffer.alloc(5 * BLOCK, 0xff));
      const disk = await openVhd(await put(directory, 'a.vhd', childOf('base.img', NO_UUID)));
      await disk.write(Buffer.alloc(BLOCK), 0);
      await disk.write(Buffer.alloc(700), BLOCK + 300);
      await disk.zero(2 * BLOCK, BLOCK + 10, { punch: true });
      const expected = Buffer.alloc(5 * BLOCK, 0xff);
      for (const [at, length] of [
        [0, BLOCK],
        [BLOCK + 300, 700],
        [2 * BLOCK, BLOCK + 10],
      ] as const)
        expected.fill(0, at, at + length);
      t.ok((await bytesOf(disk)).equals(expected));
      await disk.close();
    },
  },
  {
    of: 'nbdkit a0ae7b21, 8d507555',
    rule: 'the odd tail of a disk is read, written and zeroed to the byte',
    async test(t, directory) {
      const size = 16 * BLOCK + 1;
      const vhd = await put(directory, 'a.vhd', dynamicVhd({ size }));
      const fixed = await put(directory, 'f.vhd', Buffer.concat([Buffer.alloc(size), vhdFooter({ size })]));
      const { head, dataStart } = vdiHead({ size, blockBytes: BLOCK });
      const vdi = await put(directory, 'a.vdi', Buffer.concat([head], dataStart + 17 * BLOCK));
      for (const [driver, path] of [
        ['vhd', vhd],
        ['vhd', fixed],
        ['vdi', vdi],
      ] as const) {
        const disk = await openImageDisk(driver, path);
        t.equal(disk.size, size);
        t.equal(await disk.write(Buffer.alloc(1000, 5), size - 3), 3);
        t.ok((await bytesOf(disk)).subarray(-4).equals(Buffer.of(0, 5, 5, 5)), `${path}: written`);
        await disk.zero(size - 1, 1, { punch: true });
        t.ok((await bytesOf(disk)).subarray(-4).equals(Buffer.of(0, 5, 5, 0)), `${path}: zeroed`);
        await disk.close();
      }
    },
  },
];

/** Makes the id of a footer zeros. */
function withoutId(footer: Buffer): void {
  footer.fill(0, 68, 84);
  seal(footer, 64);
}

function sealHeader(image: Buffer): void {
  seal(image.subarray(512, 1536), 36);
}

function seal(part: Buffer, sumAt: number): void {
  part.fill(0, sumAt, sumAt + 4);
  part.writeUInt32BE(0xffffffff - part.reduce((total, byte) => total + byte, 0), sumAt);
}

for (const { of, rule, test } of ROWS) {
  t.test(`${rule} (${of})`, async (t) => {
    const directory = await mkdtemp(join(tmpdir(), 'known-'));
    t.teardown(() => rm(directory, { recursive: true }));
    await test(t, directory);
  });
}
