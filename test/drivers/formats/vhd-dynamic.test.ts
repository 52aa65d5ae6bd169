/** Dynamic and differencing VHDs that others have made, or damaged. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { frontDisk } from '../../../drivers/disk.js';
import type { RawDisk } from '../../../drivers/driver.js';
import examiner from '../../../drivers/vhd/examine.js';
import vhd from '../../../drivers/vhd/index.js';
import { patternBytes } from '../../conformance/pattern.js';
import { openTreeDisk } from '../graph-factory.js';
import { type DynamicFields, dynamicVhd, vhdFooter } from '../images/vhd.js';
import { contextOver, diskOf, mutated, refusesOrServes, seed } from './image-bytes.js';

const BLOCK = 4096;
const SIZE = 5 * BLOCK;
const UUID = '5a'.repeat(16);

interface Options {
  readonly backing?: Buffer;
  readonly options?: Readonly<Record<string, string>>;
  readonly readOnly?: boolean;
}

async function opened(bytes: Buffer, { backing, options = {}, readOnly = true }: Options = {}): Promise<RawDisk> {
  const context = contextOver(bytes);
  const below = backing && frontDisk(await opened(backing), { readOnly: true });
  const disks = { ...context.disks, ...(below && { backing: below }) };
  const disk = await vhd.open({ ...context, disks, options, readOnly });
  await disk.activate?.();
  return disk;
}

async function bytesOf(disk: RawDisk): Promise<Buffer> {
  const bytes = Buffer.alloc(disk.size, 0x77);
  await disk.read(bytes, 0);
  return bytes;
}

const data = (block: number): Buffer => patternBytes(block * BLOCK, BLOCK, 7);

t.test('blocks that are absent are zeros, and sectors that the bitmap does not have, too', async (t) => {
  const bits = Buffer.alloc(512);
  bits[0] = 0b1010_0001;
  const placed = [
    { block: 3, data: data(3) },
    { block: 1, data: data(1), bits },
  ];
  const expected = Buffer.alloc(SIZE);
  data(3).copy(expected, 3 * BLOCK);
  for (const sector of [0, 2, 7]) data(1).copy(expected, BLOCK + sector * 512, sector * 512, (sector + 1) * 512);
  for (const fields of [{}, { hasFooter: false }, { hasBatmap: true }, { entries: 50 }]) {
    const disk = await opened(dynamicVhd({ size: SIZE, placed, ...fields }));
    t.ok((await bytesOf(disk)).equals(expected), JSON.stringify(fields));
  }
});

t.test('a differencing image shows its parent, which must be the right one', async (t) => {
  const bits = Buffer.alloc(512);
  bits[0] = 0b0100_0000;
  const parent = dynamicVhd({ size: 3 * BLOCK, placed: [{ block: 1, data: data(1) }] });
  const child: DynamicFields = { size: SIZE, type: 4, parentUuid: UUID, placed: [{ block: 1, bits, data: data(9) }] };
  const expected = Buffer.alloc(SIZE);
  data(1).copy(expected, BLOCK);
  data(9).copy(expected, BLOCK + 512, 512, 1024);
  t.ok((await bytesOf(await opened(dynamicVhd(child), { backing: parent }))).equals(expected));
  const fixed = Buffer.concat([expected.subarray(0, 2 * BLOCK), vhdFooter({ size: 2 * BLOCK })]);
  t.ok(await opened(dynamicVhd(child), { backing: fixed }), 'a fixed one has an id, too');
  const other = opened(dynamicVhd({ ...child, parentUuid: '11'.repeat(16) }), { backing: parent });
  await t.rejects(other, { code: 'FAILED', message: /its parent has the id 1111/ });
  await t.rejects(opened(dynamicVhd(child)), { code: 'NOT_FOUND', message: /parent was not given/ });
});

t.test('the parent is named by its locators, or in the header', async (t) => {
  const needs = async (fields: Partial<DynamicFields>) => {
    const { disks } = contextOver(dynamicVhd({ size: SIZE, type: 4, parentUuid: UUID, ...fields }));
    return await vhd.needs({ disks, files: {}, options: {}, name: 'a.vhd', absent: [] });
  };
  const wide = (name: string): Buffer => Buffer.from(name, 'utf16le');
  const need = (name: string, driver = 'vhd') => [{ role: 'backing', name, driver }];
  const absolute = { code: 'W2ku', name: wide('C:\\images\\a b.vhd') };
  const url = { code: 'MacX', name: Buffer.from('file://./a%20b.vhd') };
  t.same(await needs({ locators: [absolute] }), need('/images/a b.vhd'));
  t.same(await needs({ locators: [absolute, { code: 'W2ru', name: wide('.\\a b.vhd') }] }), need('./a b.vhd'));
  t.same(await needs({ locators: [absolute, url] }), need('./a b.vhd'));
  t.same(await needs({ locators: [{ ...url, space: 1 }] }), need('./a b.vhd'), 'space may be in sectors');
  t.same(await needs({ locators: [url], parentUuid: '00'.repeat(16) }), need('./a b.vhd', 'aio'), 'a raw parent');
  await t.rejects(needs({}), { code: 'FAILED', message: /does not name its parent/ });
});

t.test('the size is the current one, unless the geometry is asked for', async (t) => {
  const bytes = dynamicVhd({ size: SIZE, geometry: [2, 4, 4] });
  t.equal((await opened(bytes)).size, SIZE);
  t.equal((await opened(bytes, { options: { size: 'geometry' } })).size, 2 * 4 * 4 * 512);
  t.equal(
    (await opened(dynamicVhd({ size: SIZE, geometry: [900, 4, 4] }), { options: { size: 'geometry' } })).size,
    SIZE,
  );
  t.throws(() => vhd.check({ size: 'large' }), { code: 'USAGE' });
});

t.test('each fault has its line', async (t) => {
  const refuse = async (
    fields: Partial<DynamicFields>,
    code: string,
    message: RegExp,
    patch = (_: Buffer): void => {},
  ) => {
    const bytes = dynamicVhd({
      size: SIZE,
      placed: [
        { block: 1, data: data(1) },
        { block: 0, data: data(0) },
      ],
      ...fields,
    });
    patch(bytes);
    const served = async () => bytesOf(await opened(bytes, { readOnly: false }));
    await t.rejects(served(), { code, message, name: 'FusetapError' }, String(message));
  };
  await refuse({ blockBytes: 512 }, 'FAILED', /blocks have 512 bytes/);
  await refuse({ entries: 4 }, 'FAILED', /4 blocks are less/);
  await refuse({ hidden: 1 }, 'DENIED', /on top of this VHD/);
  await refuse({ creator: 'tap\0', creatorVersion: 1 }, 'UNSUPPORTED', /tapdisk 0\.1/);
  await refuse({ creator: 'tap\0', creatorVersion: 0x10004 }, 'UNSUPPORTED', /tapdisk 1\.4/);
  await refuse({}, 'FAILED', /checksum of its header/, (bytes) => bytes.fill(1, 600, 601));
  await refuse({}, 'FAILED', /no header at byte/, (bytes) => bytes.fill(0, 512, 520));
  await refuse({}, 'FAILED', /block 1 is said to be at byte 512/, (bytes) => bytes.writeUInt32BE(1, 1536 + 4));
  await refuse({}, 'FAILED', /block 1 is said to be at byte 2147483/, (bytes) =>
    bytes.writeUInt32BE(0x400000, 1536 + 4),
  );
  await refuse({}, 'FAILED', /two of its blocks overlap/, (bytes) => bytes.copy(bytes, 1536, 1540, 1544));
  await refuse({ hasBatmap: true }, 'UNSUPPORTED', /encrypted/, (bytes) => bytes.writeUInt8(1, 2048 + 29));
  await refuse({ size: 2n ** 60n, entries: 5 }, 'FAILED', /too large|blocks are less/);
});

t.test('a locator behind the blocks keeps its place, and new blocks begin behind it', async (t) => {
  const name = Buffer.from('file://./base.vhd');
  const fields = { type: 4, parentUuid: UUID, locators: [{ code: 'MacX', name }], hasLocatorsLast: true };
  const bytes = dynamicVhd({ size: SIZE, placed: [{ block: 1, data: data(1) }], ...fields });
  const [at, end] = [bytes.length - 1024, bytes.length - 512];
  t.ok(bytes.subarray(at).toString().startsWith('file:'), 'the image is as it is meant');
  const parent = dynamicVhd({ size: SIZE, placed: [] });
  const disk = await opened(bytes, { backing: parent });
  t.ok((await bytesOf(disk)).subarray(BLOCK, 2 * BLOCK).equals(data(1)));
  const directory = t.testdir({ 'child.vhd': bytes, 'base.vhd': parent });
  const path = join(directory, 'child.vhd');
  const written = frontDisk(await openTreeDisk({ driver: 'vhd', options: {}, on: { file: { file: path } } }, false), {
    readOnly: false,
  });
  await written.write(data(3), 3 * BLOCK);
  await written.close();
  const after = await readFile(path);
  t.ok(after.subarray(at, end).equals(bytes.subarray(at, end)), 'the locator is as it was');
  t.ok(after.readUInt32BE(1536 + 4 * 3) * 512 >= end, 'the new block is behind it');
  t.same((await examiner.checker.check(diskOf(after))).corruptions, []);
});

t.test('a block that begins like a batmap is a block, because the table says so', async (t) => {
  const blockBytes = 32_768;
  const bits = Buffer.alloc(512, 0xff);
  bits.write('tdbatmap', 0, 'latin1');
  const placed = [{ block: 0, bits, data: patternBytes(0, blockBytes, 3) }];
  // the bitmap of the first block is right behind the table
  const fields = { size: 3 * blockBytes, blockBytes, placed, tableAt: 3072 };
  const expected = Buffer.alloc(3 * blockBytes);
  for (let sector = 0; sector < 64; sector++) {
    const isThere = ((bits[sector >> 3] as number) & (0x80 >> (sector & 7))) !== 0;
    if (isThere) patternBytes(0, blockBytes, 3).copy(expected, sector * 512, sector * 512, (sector + 1) * 512);
  }
  for (const readOnly of [true, false]) {
    const disk = await opened(dynamicVhd(fields), { readOnly });
    t.ok((await bytesOf(disk)).equals(expected));
  }
  t.same((await examiner.checker.check(diskOf(dynamicVhd(fields)))).corruptions, []);
  const batmap = dynamicVhd({ ...fields, placed: [], hasBatmap: true });
  batmap.writeUInt8(1, 3584 + 29);
  await t.rejects(opened(batmap), { code: 'UNSUPPORTED', message: /encrypted/ }, 'what is no block is a batmap');
});

t.test('a block is never where something else is', async (t) => {
  const locators = [{ code: 'MacX', name: Buffer.from('file://./base.vhd') }];
  const fields = { size: SIZE, type: 4, parentUuid: UUID, hasBatmap: true, locators, hasLocatorsLast: true };
  const parent = dynamicVhd({ size: SIZE });
  for (const [start, what] of [
    [0, 'the copy of the footer'],
    [1024, 'the header'],
    [1536, 'the table'],
    [2560, 'the batmap'],
    // the last sectors of it
    [-512 - 8 * 512, 'a locator of the parent'],
    [-512, 'a locator of the parent'],
  ] as const) {
    const bytes = dynamicVhd({ ...fields, placed: [{ block: 1, data: data(1) }] });
    const at = start < 0 ? bytes.length + start - 512 : start;
    // block 4 is placed so that its end or its beginning is there
    bytes.writeUInt32BE(at / 512, 1536 + 16);
    const line = new RegExp(`block 4 is said to be at byte ${at}, and overlaps ${what} at byte`);
    for (const readOnly of [true, false]) {
      const served = async () => bytesOf(await opened(bytes, { readOnly, backing: parent }));
      await t.rejects(served(), { code: 'FAILED', message: line });
    }
    const { corruptions } = await examiner.checker.check(diskOf(bytes));
    t.match(corruptions.join(), /block 4.* overlaps|overlaps block 4/, what);
  }
});

t.test('sectors of a block that is cut off are not zeros', async (t) => {
  const whole = dynamicVhd({ size: SIZE, hasFooter: false, placed: [{ block: 1, data: data(1) }] });
  const cut = await opened(whole.subarray(0, whole.length - 512));
  await t.rejects(bytesOf(cut), { code: 'FAILED', message: /block 1 is cut off/ });
  const bits = Buffer.alloc(512);
  bits[0] = 0b1000_0000;
  const absent = dynamicVhd({ size: SIZE, hasFooter: false, placed: [{ block: 1, data: data(1), bits }] });
  const disk = await opened(absent.subarray(0, absent.length - 512));
  t.ok(
    (await bytesOf(disk)).subarray(BLOCK, BLOCK + 512).equals(data(1).subarray(0, 512)),
    'a crash may cut what is absent',
  );
});

t.test(`hostile images (FUSETAP_TEST_SEED=${seed})`, async (t) => {
  let served = 0;
  const valid = dynamicVhd({
    size: SIZE,
    placed: [
      { block: 1, data: data(1) },
      { block: 4, data: data(4) },
    ],
  });
  const check = async (bytes: Buffer): Promise<void> => {
    // with right checksums, else few get past them
    for (const [at, length, sumAt] of [
      [0, 512, 64],
      [512, 1024, 36],
      [bytes.length - 512, 512, 64],
    ] as const) {
      if (at < 0 || at + length > bytes.length) continue;
      const part = bytes.subarray(at, at + length);
      part.fill(0, sumAt, sumAt + 4);
      part.writeUInt32BE(0xffffffff - part.reduce((total, byte) => total + byte, 0), sumAt);
    }
    const isServed = await refusesOrServes(() => opened(bytes), new Map([[7, bytes.length]]));
    if (!isServed) return;
    served += 1;
    const disk = frontDisk(await opened(bytes), { readOnly: true });
    await disk.read(Buffer.alloc(Math.min(disk.size, 8 * BLOCK)), 0).catch(() => {});
  };
  const places = [16, 48, 52, 60, 512 + 16, 512 + 20, 512 + 28, 512 + 32, 1536, 1540, 1552, 512 + 576, 512 + 592];
  await fc.assert(fc.asyncProperty(mutated(valid, places), check), { seed, numRuns: 2000 });
  t.ok(served > 20, `${served} were served`);
  t.ok(diskOf(valid));
});
