/** Damaged and hostile images: each is refused in one line, or only the damaged block is an error. */
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { frontDisk } from '../../../drivers/disk.js';
import { FusetapError } from '../../../drivers/errors.js';
import vhdx from '../../../drivers/vhdx/index.js';
import { contextOver, mutated, refusesOrServes, seed } from '../formats/image-bytes.js';
import {
  BAT_AT,
  BAT_GUID,
  batEntry,
  DATA_GUID,
  HEADERS_AT,
  type HeaderFields,
  ITEM,
  METADATA_AT,
  METADATA_GUID,
  parentLocator,
  REGIONS_AT,
  type RegionFields,
  regionTable,
  u32,
  u64,
  type VhdxFields,
  vhdxBytes,
  vhdxHeader,
} from '../images/vhdx.js';
import { bytesAt, MIB, openBytes, plainImage } from './over.js';

const GUID = '00000000-1111-2222-3333-444444444444';

async function refused(t: Test, bytes: Buffer, message: RegExp, code = 'FAILED'): Promise<void> {
  await t.rejects(openBytes(bytes), { code, message }, String(message));
  await t.rejects(openBytes(bytes), { message: /^[^\n]{1,300}$/, hint: /./ });
}

/** The image with parts replaced. */
const withParts = (...parts: [at: number, bytes: Buffer][]): Buffer => plainImage({ parts });

t.test('a sound image', async (t) => {
  const disk = await openBytes(plainImage());
  t.equal(disk.size, 3 * MIB);
  t.same(await bytesAt(disk, [0, MIB - 1, MIB, 2 * MIB - 1, 2 * MIB, 3 * MIB - 1]), [1, 1, 0, 0, 2, 2]);
  t.equal(disk.identity, 'da7a0000-0001-0002-0003-000000000004');
  await t.rejects(vhdx.open(contextOver(plainImage())), { code: 'DENIED', hint: /mode r.*--snapshot.*convert/ });
});

t.test('another format is named', async (t) => {
  await refused(t, Buffer.alloc(8 * MIB), /it is not a VHDX image/, 'USAGE');
  await refused(t, Buffer.from('vhdxfile'), /it is not a VHDX image/, 'USAGE');
  await refused(t, Buffer.concat([Buffer.from('QFI\xfb', 'latin1'), Buffer.alloc(600)]), /qcow2/, 'USAGE');
});

t.test('headers', async (t) => {
  const broken = Buffer.alloc(4096, 0x55);
  const [first, second] = HEADERS_AT;
  for (const at of HEADERS_AT) t.equal((await openBytes(withParts([at, broken]))).size, 3 * MIB, `one copy, at ${at}`);
  await refused(t, withParts([first, broken], [second, broken]), /neither of its headers/);
  await refused(t, plainImage().subarray(0, second), /neither of its headers|region tables/);
  const header = (fields: HeaderFields): Buffer => vhdxHeader({ sequence: 7, ...fields });
  await refused(t, withParts([second, header({ dataGuid: GUID })]), /two headers differ.*sequence number 7/);
  t.equal((await openBytes(withParts([second, header({})]))).size, 3 * MIB, 'equal headers, as Disk2VHD writes');
  const both = (fields: HeaderFields): Buffer => plainImage({ header: fields });
  await refused(t, both({ version: 2 }), /version 2/, 'UNSUPPORTED');
  await refused(t, both({ logBytes: MIB + 4096 }), /no multiples of 1 MiB/);
  await refused(t, both({ logAt: MIB + 512 }), /no multiples of 1 MiB/);
  await refused(t, both({ logAt: 0 }), /no multiples of 1 MiB/);
  const newer = await openBytes(withParts([second, header({ sequence: 8, dataGuid: GUID })]));
  t.equal(newer.identity, GUID, 'the higher sequence number counts');
});

t.test('region tables', async (t) => {
  const [first, second] = REGIONS_AT;
  const bat = { guid: BAT_GUID, offset: BAT_AT, length: MIB };
  const metadata = { guid: METADATA_GUID, offset: METADATA_AT, length: MIB };
  const table = (...regions: RegionFields[]): Buffer => plainImage({ regions });
  const broken = Buffer.alloc(64, 0x55);
  t.equal((await openBytes(withParts([first, broken]))).size, 3 * MIB, 'the second copy is enough');
  await refused(t, withParts([first, broken], [second, broken]), /neither of its region tables/);
  await refused(t, table(metadata), /names no block table/);
  await refused(t, table(bat), /names no metadata/);
  await refused(t, table(bat, metadata, bat), /twice/);
  await refused(
    t,
    table(bat, metadata, { guid: GUID, offset: 5 * MIB, length: MIB }),
    /needs the region/,
    'UNSUPPORTED',
  );
  const optional = { guid: GUID, offset: 5 * MIB, length: MIB, required: false };
  const disk = await openBytes(table(bat, metadata, optional));
  await t.rejects(disk.read(Buffer.alloc(1), 2 * MIB), { code: 'FAILED', message: /block 2 .*in its region/ });
  await refused(t, table(bat, { ...metadata, offset: BAT_AT }), /overlap at byte 3145728/);
  await refused(t, table(bat, { ...metadata, offset: MIB }), /its log and its region .* overlap/);
  await refused(t, table({ ...bat, offset: 0 }, metadata), /its headers and its region .* overlap/);
  await refused(t, table(bat, { ...metadata, length: 2 * MIB }), /overlap/);
  await refused(t, table(bat, { ...metadata, length: 4096 }), /no MiB/);
  await refused(t, table(bat, { ...metadata, length: 0 }), /no MiB/);
  await refused(t, table({ ...bat, offset: 2 ** 52 }, metadata), /ends at byte/);
  const many = regionTable([bat, metadata], 2048);
  await refused(t, withParts([first, many], [second, many]), /2048 entries/);
});

t.test('metadata', async (t) => {
  const parameters = METADATA_AT + 65_536;
  const image = (fields: Partial<VhdxFields>): Buffer => plainImage(fields);
  await refused(t, withParts([METADATA_AT, Buffer.alloc(8)]), /does not say `metadata`/);
  await refused(t, withParts([METADATA_AT + 10, u32(2048)]), /2048 items/);
  for (const blockBytes of [0, 512, MIB - 1, 3 * MIB, 512 * MIB, 0xffffffff]) {
    await refused(t, withParts([parameters, u32(blockBytes, 0)]), new RegExp(`its blocks have ${blockBytes} bytes`));
  }
  await refused(t, image({ sectorBytes: 1024 }), /logical sectors have 1024 bytes/);
  await refused(t, image({ physicalSectorBytes: 0 }), /physical sectors have 0 bytes/);
  for (const size of [0, 2 ** 46 + 512, 3 * MIB + 1, (1n << 64n) - 512n]) {
    await refused(t, image({ size }), new RegExp(`its disk has ${size} bytes`));
  }
  const unknown = { guid: GUID, bytes: u32(1) };
  await refused(t, image({ items: [unknown] }), /needs the metadata item/, 'UNSUPPORTED');
  t.equal((await openBytes(image({ items: [{ ...unknown, flags: 0 }] }))).size, 3 * MIB, 'it is not required');
  await refused(t, image({ items: [{ guid: ITEM.size, bytes: u64(1) }] }), /twice/);
  const user = { guid: ITEM.size, bytes: u64(1), flags: 1 };
  t.equal((await openBytes(image({ items: [user] }))).size, 3 * MIB, 'an item of a user has another name space');
  for (const [at, value] of [
    [48, 0],
    [48, 0xfffffff0],
    [52, 0xffffffff],
    [52, 4],
  ] as const) {
    await refused(t, withParts([METADATA_AT + at, u32(value)]), /item|file parameters/);
  }
});

t.test('a block table that is too small', async (t) => {
  const large = { size: 2 ** 40, bat: [], batBytes: 8 * MIB };
  await refused(t, vhdxBytes(large), /block table has 8388608 bytes, and the disk needs 1048831 entries/);
  t.equal((await openBytes(vhdxBytes({ ...large, batBytes: 9 * MIB }))).size, 2 ** 40);
  await refused(t, vhdxBytes({ size: 2 ** 46, bat: [] }), /block table/);
});

t.test('an entry that is not valid is an error for its block only', async (t) => {
  const cases: [entry: bigint, message: RegExp][] = [
    [batEntry(6, 6), /block 1 is at byte 6291456, and the file ends at byte 6291456/],
    [batEntry(6, 2 ** 43), /block 1 is at byte/],
    [batEntry(6, 0), /block 1 is at byte 0, in its headers/],
    [batEntry(6, 1), /in its log/],
    [batEntry(6, 2), /in its region/],
    [batEntry(6, 3), /in its region/],
    [batEntry(4), /the state 4/],
    [batEntry(7, 4), /the state 7/],
  ];
  for (const [entry, message] of cases) {
    const disk = await openBytes(plainImage({ bat: [batEntry(6, 4), entry, batEntry(6, 5)] }));
    await t.rejects(disk.read(Buffer.alloc(10), MIB), { code: 'FAILED', message });
    await t.rejects(disk.extents(MIB, MIB), { code: 'FAILED', message });
    t.same(await bytesAt(disk, [0, 2 * MIB]), [1, 2], 'the other blocks');
  }
  const states = [0, 1, 2, 3, 5].map((state) => batEntry(state, 4));
  const disk = await openBytes(plainImage({ size: 5 * MIB, bat: states }));
  t.same(await bytesAt(disk, [0, MIB, 2 * MIB, 3 * MIB, 4 * MIB]), [0, 0, 0, 0, 0], 'zeros, wherever they point to');
  const twice = await openBytes(plainImage({ bat: [batEntry(6, 4), batEntry(6, 4), 0n] }));
  t.same(await bytesAt(twice, [0, MIB]), [1, 1], 'two blocks at one place, as for QEMU');
});

t.test('parent locators', async (t) => {
  const linkage = { parent_linkage: `{${GUID}}` };
  const child = (locator: Buffer): Buffer =>
    plainImage({ flags: 2, items: [{ guid: ITEM.parentLocator, bytes: locator }], batBytes: MIB });
  await refused(t, plainImage({ flags: 2 }), /no parent locator/);
  await refused(t, child(Buffer.alloc(10)), /locator has 10 bytes/);
  await refused(t, child(Buffer.alloc(20)), /locator has the type/, 'UNSUPPORTED');
  await refused(t, child(parentLocator({ relative_path: 'a' })), /which parent it is/);
  const good = parentLocator(linkage);
  await refused(
    t,
    child(Buffer.concat([good.subarray(0, 18), Buffer.from([0xff, 0xff]), good.subarray(20)])),
    /65535 entries/,
  );
  await refused(t, child(good.subarray(0, good.length - 2)), /after its end/);
  await t.rejects(openBytes(child(good)), { code: 'NOT_FOUND', message: 'its parent was not given' });
});

t.test(`mutants (FUSETAP_TEST_SEED=${seed})`, async (t) => {
  let served = 0;
  const image = plainImage();
  const places = [METADATA_AT, METADATA_AT + 8, METADATA_AT + 48, METADATA_AT + 65_536, BAT_AT, BAT_AT + 8];
  const check = async (bytes: Buffer): Promise<void> => {
    const open = () => vhdx.open({ ...contextOver(bytes), readOnly: true });
    if (await refusesOrServes(open, new Map([[7, bytes.length]]))) served += 1;
  };
  await fc.assert(fc.asyncProperty(mutated(image, places), check), { seed, numRuns: 60 });
  t.ok(served > 5, `${served} were served`);
});

t.test(`mutants of a differencing image (FUSETAP_TEST_SEED=${seed})`, async (t) => {
  const bat = Array.from({ length: 4097 }, (_, i) => (i === 4096 ? batEntry(6, 5) : batEntry([7, 2, 0][i] ?? 0, 4)));
  const linkage = { parent_linkage: DATA_GUID, relative_path: 'a.vhdx' };
  const child = vhdxBytes({ size: 3 * MIB, bat, parent: linkage }, 2 * MIB).fill(0xa5, 5 * MIB);
  const parent = await openBytes(plainImage());
  const places = [METADATA_AT + 48, METADATA_AT + 65_536, METADATA_AT + 65_564, BAT_AT, BAT_AT + 8, BAT_AT + 32_768];
  let read = 0;
  const check = async (bytes: Buffer): Promise<void> => {
    const context = { ...contextOver(bytes), readOnly: true };
    const open = () => vhdx.open({ ...context, disks: { ...context.disks, backing: parent } });
    if (!(await refusesOrServes(open, new Map([[7, bytes.length]])))) return;
    const disk = frontDisk(await open(), { readOnly: true });
    for (const offset of [0, MIB, 2 * MIB]) {
      const [error] = await disk.read(Buffer.alloc(MIB), offset).then(
        () => [],
        (reason: unknown) => [reason],
      );
      if (error === undefined) read += 1;
      else if (!(error instanceof FusetapError)) throw error;
    }
    await disk.extents(0, disk.size).catch(() => {});
  };
  await fc.assert(fc.asyncProperty(mutated(child, places), check), { seed, numRuns: 60 });
  t.ok(read > 20, `${read} reads`);
});
