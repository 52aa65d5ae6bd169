/** New VHDs and VDIs, and the checks of such images: what QEMU and the drivers say of them. */
import { copyFileSync } from 'node:fs';
import { open, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import t, { type Test } from 'tap';
import type { Creator, NewImage } from '../../drivers/creating/creator.js';
import { frontDisk } from '../../drivers/disk.js';
import vdiCreator from '../../drivers/vdi/create.js';
import vdiExaminer from '../../drivers/vdi/examine.js';
import vhdCreator from '../../drivers/vhd/create.js';
import vhdExaminer from '../../drivers/vhd/examine.js';
import { patternBytes } from '../conformance/pattern.js';
import { diskOf } from './formats/image-bytes.js';
import { openImageDisk, openTreeDisk } from './graph-factory.js';
import { vdiHead } from './images/vdi.js';
import { dynamicVhd } from './images/vhd.js';
import { compareWithQemu, qemuImg, qemuSize, whyNoQemu } from './qemu.js';

const MIB = 1 << 20;
const skip = whyNoQemu();

async function make(
  path: string,
  creator: Creator,
  image: Partial<NewImage> & Pick<NewImage, 'size'>,
): Promise<number> {
  const whole: NewImage = { backing: null, options: {}, ...image };
  const size = creator.check(whole);
  const file = await open(path, 'w+');
  await creator.write(file.fd, whole);
  await file.close();
  return size;
}

const SHAPES: readonly [driver: string, format: string, creator: Creator, options: Record<string, string>][] = [
  ['vhd', 'vpc', vhdCreator, {}],
  ['vhd', 'vpc', vhdCreator, { subformat: 'fixed' }],
  ['vdi', 'vdi', vdiCreator, {}],
  ['vdi', 'vdi', vdiCreator, { static: 'on' }],
];

for (const [driver, format, creator, options] of SHAPES) {
  t.test(`a new ${driver}, ${JSON.stringify(options)}`, { skip }, async (t) => {
    for (const size of [512, 1000, 5 * MIB + 512, 300 * MIB]) {
      const path = join(t.testdir(), `a.${driver}`);
      const made = await make(path, creator, { size, options });
      t.equal(made, Math.ceil(size / 512) * 512);
      t.equal(qemuSize(format, path), made);
      const disk = await openImageDisk(driver, path);
      t.equal(disk.size, made);
      await disk.write(patternBytes(0, Math.min(made, 3000), 1), Math.max(0, made - 3000));
      await disk.write(patternBytes(0, 500, 2), 0);
      await disk.close();
      const again = await openImageDisk(driver, path, true);
      await compareWithQemu(format, path, again);
      await again.close();
      if (driver === 'vdi') t.match(qemuImg('check', '-f', 'vdi', path), /No errors/);
      const examiner = driver === 'vdi' ? vdiExaminer : vhdExaminer;
      const checked = await examiner.checker.check(diskOf(await head(path)));
      t.match(checked, { corruptionCount: 0, isDirty: false, leaks: { clusters: 0 } });
    }
  });
}

/** A file that is small enough to be read. */
async function head(path: string): Promise<Buffer> {
  const bytes = await readFile(path);
  return bytes;
}

t.test('a new VHD over others shows them, and names them', async (t) => {
  const directory = t.testdir({});
  const raw = join(directory, 'base image.img');
  await writeFile(raw, patternBytes(0, 3 * MIB, 5));
  const below = join(directory, 'über.vhd');
  await make(below, vhdCreator, { size: 3 * MIB, backing: { name: basename(raw), format: 'raw', identity: null } });
  const { identity } = await vhdExaminer.describe(diskOf(await readFile(below)));
  const top = join(directory, 'top.vhd');
  await make(top, vhdCreator, { size: 4 * MIB, backing: { name: basename(below), format: 'vpc', identity } });
  const graph = { driver: 'vhd', options: {}, on: { file: { file: top } } };
  const disk = frontDisk(await openTreeDisk(graph, false), { readOnly: false });
  await disk.write(patternBytes(0, 5000, 6), 2 * MIB - 700);
  const expected = Buffer.concat([patternBytes(0, 3 * MIB, 5), Buffer.alloc(MIB)]);
  patternBytes(0, 5000, 6).copy(expected, 2 * MIB - 700);
  const seen = Buffer.alloc(4 * MIB);
  await disk.read(seen, 0);
  t.ok(seen.equals(expected));
  await disk.close();
  t.ok((await readFile(raw)).equals(patternBytes(0, 3 * MIB, 5)), 'the base is only read');
  const described = await vhdExaminer.describe(diskOf(await readFile(top)));
  t.match(described, {
    facts: { type: 'differencing', parentUuid: identity },
    names: [{ name: './über.vhd', format: 'vpc' }],
  });
  const other = join(directory, 'other.vhd');
  copyFileSync(below, other);
  await make(below, vhdCreator, { size: 3 * MIB });
  await t.rejects(openTreeDisk(graph, true), { message: /its parent has the id/ }, 'another image has its name');
});

t.test('what cannot be made is refused', async (t) => {
  const backing = { name: 'a.img', format: 'raw' };
  const refuse = (creator: Creator, image: Partial<NewImage>, message: RegExp) =>
    t.throws(() => creator.check({ size: MIB, backing: null, options: {}, ...image }), { message, hint: /./ });
  refuse(vhdCreator, { size: 2041 * 2 ** 30 }, /at most 2040 GiB/);
  refuse(vhdCreator, { options: { subformat: 'thick' } }, /subformat/);
  refuse(vhdCreator, { options: { subformat: 'fixed' }, backing }, /no backing file/);
  refuse(vhdCreator, { options: { size: '5' } }, /no option/);
  refuse(vhdCreator, { backing: { name: 'a.vhd', format: 'vpc' } }, /no unique id/);
  refuse(vdiCreator, { size: 2 ** 44 + 1 }, /at most 16 TiB/);
  refuse(vdiCreator, { options: { static: 'yes' } }, /static/);
});

t.test('the check of a VHD finds what a write could make worse', async (t) => {
  const data = Buffer.alloc(4096, 1);
  const fields = {
    size: 5 * 4096,
    placed: [
      { block: 1, data },
      { block: 3, data },
    ],
  };
  const check = async (patch: (bytes: Buffer) => void, more = {}): Promise<readonly string[]> => {
    const bytes = dynamicVhd({ ...fields, ...more });
    patch(bytes);
    return (await vhdExaminer.checker.check(diskOf(bytes))).corruptions;
  };
  t.same(await check(() => {}), []);
  const lines = async (t: Test, patch: (bytes: Buffer) => void, line: RegExp) =>
    t.match((await check(patch)).join(), line);
  await lines(t, (bytes) => bytes.copy(bytes, 1536 + 8, 1536 + 4, 1536 + 8), /block 2 at byte \d+ overlaps block 1/);
  await lines(
    t,
    (bytes) => bytes.writeUInt32BE(2, 1536),
    /block 0 at byte 1024 overlaps the header, which ends at byte 1536/,
  );
  await lines(t, (bytes) => bytes.writeUInt32BE(0x10000, 1536), /block 0 at byte 33554432 is outside/);
  await lines(t, (bytes) => bytes.fill(1, 100, 101), /the copy of the footer at byte 0/);
  const cut = dynamicVhd({ ...fields, hasFooter: false });
  t.equal((await vhdExaminer.checker.check(diskOf(cut))).isDirty, true);
});

t.test('the check of a VDI finds blocks at one place, and a count that is too small', async (t) => {
  const check = async (map: number[], count: number) => {
    const { head: start, dataStart } = vdiHead({ size: 4 * 4096, blockBytes: 4096, type: 1, map });
    start.writeUInt32LE(count, 388);
    const bytes = Buffer.alloc(dataStart + 3 * 4096);
    start.copy(bytes);
    return await vdiExaminer.checker.check(diskOf(bytes));
  };
  const NONE = 0xffffffff;
  t.match(await check([2, NONE, 0, 1], 3), { corruptions: [], isDirty: false, clusters: { allocated: 3, total: 4 } });
  t.match(await check([0, NONE, NONE, 1], 3), { corruptions: [], isDirty: true }, 'a count that is too large');
  t.match(await check([0, NONE, 0, NONE], 1), { corruptions: [/blocks 0 and 2 are both at place 0/] });
  t.match(await check([0, 1, 2, NONE], 2), { corruptions: [/counts 2 blocks, and the last one is at place 2/] });
  t.match(await check([0, 9, NONE, NONE], 10), { corruptions: [/block 1 ends at byte/] });
});
