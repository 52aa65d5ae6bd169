import { deflateSync } from 'node:zlib';
import fc from 'fast-check';
import t from 'tap';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import { asRaw } from '../../../drivers/segments/join-disks.js';
import vmdk from '../../../drivers/vmdk/index.js';
import { bufferDisk } from '../../conformance/buffer-disk.js';
import { patternBytes } from '../../conformance/pattern.js';
import { cowdVmdk, type Grain, hostedVmdk, markedGrain, type SparseFields, streamVmdk } from '../images/sparse-vmdk.js';
import { tarEnd, tarMember } from '../images/tar.js';
import { vmdkDescriptor } from '../images/vmdk.js';
import { diskOf, mutated, randomImage, refusesOrServes, seed } from './image-bytes.js';

t.setTimeout(120_000);
const GRAIN = 4096;
const SIZE = 40 * GRAIN + 512;
const context = { memory: null, state: null, readOnly: true, isRepaired: true, options: {}, files: {} };
const fields: SparseFields = { size: SIZE, grainBytes: GRAIN, entries: 16 };

/** A disk of bytes in no file: no map, and reads of any length. */
const plain = (bytes: Buffer): Disk => frontDisk(bufferDisk(bytes), { readOnly: true });

async function opened(bytes: Buffer, more: Record<string, Disk> = {}): Promise<Disk> {
  const raw = await vmdk.open({ ...context, disks: { file: plain(bytes), ...more } });
  return frontDisk(raw, { readOnly: true });
}

async function read(disk: Disk, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length, 0xee);
  await disk.read(bytes, offset);
  return bytes;
}

const grain = (number: number, value: number): Buffer => patternBytes(number * GRAIN, GRAIN, value);
/** some of each kind, in two of three tables */
const GRAINS = new Map([
  [0, grain(0, 1)],
  [1, grain(1, 1)],
  [3, grain(3, 2)],
  [39, grain(39, 3)],
  [40, grain(40, 4)],
]);
const wholeDisk = (): Buffer => {
  const bytes = Buffer.alloc(SIZE);
  for (const [number, each] of GRAINS) each.copy(bytes, number * GRAIN);
  return bytes;
};

t.test('each kind of sparse extent is read', async (t) => {
  const hosted = hostedVmdk(GRAINS, fields);
  const stream = streamVmdk(GRAINS, fields);
  const directoryInHeader = streamVmdk(GRAINS, fields);
  directoryInHeader.bytes.writeBigUInt64LE(BigInt(directoryInHeader.directory / 512), 56);
  const longFlags = hostedVmdk(GRAINS, { ...fields, version: 3 });
  const kinds: [string, Buffer][] = [
    ['hosted', hosted.bytes],
    ['version 3', longFlags.bytes],
    ['stream', stream.bytes],
    ['stream with its directory in the header', directoryInHeader.bytes],
    ['stream that is cut behind the directory, which the header has', directoryInHeader.bytes.subarray(0, -1024)],
  ];
  for (const [kind, bytes] of kinds) {
    const disk = await opened(bytes);
    t.equal(disk.size, SIZE, kind);
    t.equal(disk.readOnly, true);
    t.ok((await read(disk, 0, SIZE)).equals(wholeDisk()), kind);
    for (const at of [3 * GRAIN - 7, 3 * GRAIN + 700]) {
      t.ok((await read(disk, at, 1000)).equals(wholeDisk().subarray(at, at + 1000)), `${kind}, at ${at}`);
    }
    await disk.close();
  }
});

t.test('zeros, and what no entry names', async (t) => {
  const image = hostedVmdk(
    new Map<number, Grain>([
      [0, grain(0, 1)],
      [1, 'zeros'],
      [2, { entry: 0 }],
    ]),
    fields,
  );
  const places = await (await opened(image.bytes)).places.locate(0, SIZE);
  t.match(places, [
    { offset: 0, length: GRAIN, state: 'unknown' },
    { offset: GRAIN, length: GRAIN, state: 'zeros', file: null },
    { offset: 2 * GRAIN, length: SIZE - 2 * GRAIN, state: 'zeros', detail: 'absent' },
  ]);
  const withoutFlag = hostedVmdk(
    new Map<number, Grain>([
      [0, grain(0, 1)],
      [1, 'zeros'],
    ]),
    { ...fields, flags: 0x3 },
  );
  const bytes = await read(await opened(withoutFlag.bytes), GRAIN, 10);
  t.ok(bytes.equals(withoutFlag.bytes.subarray(512, 522)), 'without the flag, 1 is a sector');
});

t.test('streams that are longer than their grain, or shorter at the end of the disk', async (t) => {
  const random = Buffer.alloc(GRAIN, 'the same bytes, not compressed');
  const stored = deflateSync(random, { level: 0 });
  t.ok(stored.length > GRAIN);
  const image = streamVmdk(GRAINS, fields);
  const place = image.bytes.length;
  const grown = Buffer.concat([image.bytes, markedGrain(0, random, stored), Buffer.alloc(600)]);
  const [first = 0] = image.tables;
  grown.writeBigUInt64LE(BigInt(image.directory / 512), 56);
  grown.writeUInt32LE(place / 512, first);
  t.ok((await read(await opened(grown), 0, GRAIN)).equals(random));
  const short = streamVmdk(new Map([[40, Buffer.alloc(512, 9)]]), fields);
  t.ok(
    (await read(await opened(short.bytes), 40 * GRAIN, 512)).equals(Buffer.alloc(512, 9)),
    'as QEMU writes the last',
  );
});

t.test('a stream that is cut in a grain, as by a broken download', async (t) => {
  const image = streamVmdk(GRAINS, fields);
  const grown = Buffer.concat([image.bytes, markedGrain(0, Buffer.alloc(0), Buffer.alloc(600, 1))]);
  grown.writeBigUInt64LE(BigInt(image.directory / 512), 56);
  grown.writeUInt32LE(image.bytes.length / 512, image.tables[0] ?? 0);
  for (const length of [grown.length - 1, image.bytes.length + 13, image.bytes.length + 11, image.bytes.length + 1]) {
    const disk = await opened(grown.subarray(0, length));
    await t.rejects(read(disk, 0, 1), { code: 'FAILED', errno: 5, message: /cut off at the end/ }, `${length} bytes`);
    t.ok((await read(disk, GRAIN, 100)).equals(grain(1, 1).subarray(0, 100)));
  }
});

t.test('a compressed extent without markers', async (t) => {
  const image = streamVmdk(new Map([[0, grain(0, 1)]]), { ...fields, flags: 0x1_0001 });
  const at = image.grains.get(0) ?? 0;
  deflateSync(grain(0, 5)).copy(image.bytes, at);
  t.ok((await read(await opened(image.bytes), 0, GRAIN)).equals(grain(0, 5)));
});

t.test('what breaks the rules is refused when it is opened', async (t) => {
  const header = (change: (header: Buffer) => void): Buffer => hostedVmdk(GRAINS, { ...fields, change }).bytes;
  const sectors = (at: number, value: number | bigint) => header((h) => h.writeBigUInt64LE(BigInt(value), at));
  const stream = streamVmdk(GRAINS, fields).bytes;
  const rows: [Buffer, string, RegExp][] = [
    [header((h) => h.write('KDMX', 'latin1')), 'USAGE', /is not a VMDK/],
    [Buffer.from('KDMV'), 'FAILED', /shorter than its header/],
    [header((h) => h.writeUInt32LE(4, 4)), 'UNSUPPORTED', /version 4/],
    [header((h) => h.write('\n \n\n', 73, 'latin1')), 'FAILED', /line ends/],
    [sectors(12, 0), 'FAILED', /has no bytes/],
    [sectors(12, 2n ** 63n), 'FAILED', /too large/],
    [sectors(12, 2n ** 52n), 'FAILED', /too large/],
    [sectors(12, 2n ** 43n), 'FAILED', /directory has \d+ bytes, more than 32 MiB/],
    [sectors(12, 2n ** 24n), 'FAILED', /directory of \d+ bytes at byte \d+ is not inside/],
    [sectors(20, 0), 'FAILED', /grains have 0 bytes/],
    [sectors(20, 3), 'FAILED', /grains have 1536 bytes/],
    [sectors(20, 2n ** 22n), 'FAILED', /grains have 2147483648 bytes/],
    [header((h) => h.writeUInt32LE(0, 44)), 'FAILED', /tables have 0 entries/],
    [header((h) => h.writeUInt32LE(0xffff_ffff, 44)), 'FAILED', /tables have 4294967295 entries/],
    [sectors(56, 0), 'FAILED', /directory of 12 bytes at byte 0 is not inside/],
    [sectors(56, 2n ** 40n), 'FAILED', /is not inside/],
    [sectors(56, 2n ** 64n - 1n), 'FAILED', /footer .* not there/],
    [sectors(36, 2 ** 21), 'FAILED', /descriptor has 1073741824 bytes, more than 1 MiB/],
    [sectors(28, 2 ** 21), 'FAILED', /descriptor ends at byte \d+/],
    [hostedVmdk(GRAINS, { ...fields, descriptor: Buffer.alloc(512, 'x') }).bytes, 'FAILED', /does not begin with/],
    [hostedVmdk(GRAINS, { ...fields, descriptor: Buffer.alloc(512) }).bytes, 'UNSUPPORTED', /an extent of a VMDK/],
    [hostedVmdk(GRAINS, { ...fields, descriptor: null }).bytes, 'UNSUPPORTED', /an extent of a VMDK/],
    [cowdVmdk(new Map(), { size: 4096 }).bytes, 'UNSUPPORTED', /an extent of a VMDK/],
    [Buffer.concat([Buffer.from('bebafeca00000000', 'hex'), Buffer.alloc(600)]), 'UNSUPPORTED', /seSparse/],
    [stream.subarray(0, -512), 'FAILED', /cut off/],
    [stream.subarray(0, 900), 'FAILED', /cut off/],
    [streamVmdk(GRAINS, { ...fields, change: (h) => h.writeUInt16LE(2, 77) }).bytes, 'UNSUPPORTED', /compression 2/],
    [streamVmdk(GRAINS, { ...fields, change: (h) => h.writeBigUInt64LE(8192n, 20) }).bytes, 'FAILED', /up to 2097152/],
  ];
  for (const [bytes, code, message] of rows) {
    await t.rejects(opened(bytes), { code, message, hint: /./ }, String(message));
  }
});

t.test('what is damaged in the tables is an error of the read that needs it', async (t) => {
  const broken = { code: 'FAILED', errno: 5, hint: /./ };
  const image = (): ReturnType<typeof hostedVmdk> => hostedVmdk(GRAINS, fields);
  const check = async (bytes: Buffer, message: RegExp): Promise<void> => {
    const disk = await opened(bytes);
    await t.rejects(read(disk, 0, 100), { ...broken, message }, String(message));
    t.ok((await read(disk, 39 * GRAIN, 512)).equals(wholeDisk().subarray(39 * GRAIN, 39 * GRAIN + 512)), 'another');
    await t.rejects(disk.extents(0, GRAIN), { code: 'FAILED' });
  };
  const table = image();
  table.bytes.writeUInt32LE(0xffff_ffff, table.directory);
  await check(table.bytes, /grain table at byte \d+ is not inside/);
  const place = image();
  place.bytes.writeUInt32LE(0xffff_fff0, place.tables[0] ?? 0);
  await check(place.bytes, /grain at byte \d+ is not inside/);
  const cut = hostedVmdk(new Map([[0, { entry: 0 }]]), fields);
  const grown = Buffer.concat([cut.bytes, Buffer.alloc(GRAIN - 512, 1)]);
  grown.writeUInt32LE(cut.bytes.length / 512, cut.tables[0] ?? 0);
  await t.rejects(read(await opened(grown), 0, 1), { ...broken, message: /is not inside/ }, 'a grain that is cut');
});

t.test('a compressed grain that is damaged is an error', async (t) => {
  const good = streamVmdk(GRAINS, fields);
  const at = good.grains.get(1) ?? 0;
  const rows: [(bytes: Buffer) => void, RegExp][] = [
    [(bytes) => bytes.writeBigUInt64LE(7n, at), /is of sector 7, not 8/],
    [(bytes) => bytes.writeUInt32LE(0, at + 8), /states a length of 0 bytes/],
    [(bytes) => bytes.writeUInt32LE(0xffff_ffff, at + 8), /states a length of 4294967295 bytes/],
    [(bytes) => bytes.writeUInt32LE(20, at + 8), /cannot be decoded/],
    [(bytes) => bytes.fill(0xff, at + 12, at + 40), /cannot be decoded/],
    [(bytes) => void bytes.writeUInt8(bytes.readUInt8(at + 12 + 200) ^ 1, at + 12 + 200), /cannot be decoded/],
    [(bytes) => markedGrain(GRAIN, Buffer.alloc(GRAIN - 1)).copy(bytes, at), /has 4095 bytes, not 4096/],
    [(bytes) => markedGrain(GRAIN, Buffer.alloc(2 ** 20)).copy(bytes, at), /cannot be decoded/],
    // an entry that names the grain of another place: a loop of tables cannot give the bytes twice
    [
      (bytes) => bytes.copy(bytes, (good.tables[0] ?? 0) + 4, good.tables[0] ?? 0, (good.tables[0] ?? 0) + 4),
      /of sector 0/,
    ],
    [(bytes) => bytes.writeUInt32LE(bytes.length / 512 - 1, (good.tables[0] ?? 0) + 4), /is of sector 0|length/],
    [(bytes) => bytes.writeUInt32LE(0x7fff_ffff, (good.tables[0] ?? 0) + 4), /is not inside/],
  ];
  for (const [change, message] of rows) {
    const bytes = Buffer.from(good.bytes);
    change(bytes);
    const disk = await opened(bytes);
    await t.rejects(read(disk, GRAIN + 5, 10), { code: 'FAILED', errno: 5, message }, String(message));
    t.ok((await read(disk, 0, 100)).equals(wholeDisk().subarray(0, 100)), 'others are read');
  }
});

t.test('split disks: sparse, flat, and zeros, also of ESXi', async (t) => {
  const flat = patternBytes(0, 5000 * 512, 7);
  const hosted = hostedVmdk(GRAINS, { ...fields, descriptor: null });
  const cowd = cowdVmdk(new Map([[0, grain(0, 1)]]), { size: SIZE, grainBytes: GRAIN });
  const lines = [
    `RW ${SIZE / 512} SPARSE "a"`,
    'RW 5000 FLAT "b" 0',
    'RW 100 ZERO',
    `RW ${SIZE / 512 - 1} VMFSSPARSE "c"`,
  ];
  const text = vmdkDescriptor(lines, { type: 'custom' });
  const [extent0, extent1, extent2] = [hosted.bytes, flat, cowd.bytes].map((bytes, i) => {
    return frontDisk(asRaw(diskOf(bytes, 10 + i)), { readOnly: true });
  }) as [Disk, Disk, Disk];
  const extents = { extent0, extent1, extent2 };
  const disk = await opened(text, extents);
  const expected = Buffer.concat([
    wholeDisk(),
    flat,
    Buffer.alloc(100 * 512),
    grain(0, 1),
    Buffer.alloc(SIZE - 512 - GRAIN),
  ]);
  t.equal(disk.size, expected.length);
  for (let at = 0; at < disk.size; at += 100_000) {
    const length = Math.min(100_000, disk.size - at);
    t.ok((await read(disk, at, length)).equals(expected.subarray(at, at + length)), `at ${at}`);
  }
  t.equal(disk.map?.map.granuleBytes, GRAIN);
  t.equal(disk.map?.readOnly, true);
  t.match(await disk.places.locate(SIZE, 10), [{ state: 'data', file: 1 }]);
  const writes = vmdk.open({ ...context, readOnly: false, disks: { file: plain(text), ...extents } });
  await t.rejects(writes, { code: 'DENIED', message: /can only be read/, hint: /mode r.*--snapshot/ });
  const larger = vmdkDescriptor([`RW ${SIZE / 512 + 1} SPARSE "a"`]);
  await t.rejects(opened(larger, extents), { code: 'FAILED', message: /'a' has \d+ bytes, and the descriptor says/ });
  const notSparse = vmdkDescriptor(['RW 8 SPARSE "b"']);
  const inFlat = { extent0: extent1 };
  await t.rejects(opened(notSparse, inFlat), { code: 'FAILED', message: /'b' is not a sparse one/ });
  const damaged = Buffer.from(hosted.bytes);
  damaged.writeUInt32LE(0, 44);
  const named = { code: 'FAILED', message: /extent 'a': .*0 entries/ };
  await t.rejects(opened(vmdkDescriptor(['RW 8 SPARSE "a"']), { extent0: diskOf(damaged) }), named);
});

t.test('the memory of all directories has a bound', async (t) => {
  const change = (header: Buffer): void => {
    header.writeBigUInt64LE(BigInt((2 ** 22 * 16 * GRAIN) / 512), 12);
  };
  const head = hostedVmdk(new Map(), { ...fields, descriptor: null, change }).bytes;
  const size = 20 << 20;
  const extent = frontDisk(
    {
      size,
      close: async () => {},
      read: async (buffer, offset) => {
        buffer.fill(0);
        buffer.set(head.subarray(offset, offset + buffer.byteLength));
      },
    },
    { readOnly: true },
  );
  const text = (count: number): Buffer => {
    return vmdkDescriptor(Array.from({ length: count }, (_, i) => `RW 8 SPARSE "e${i}"`));
  };
  await t.resolves(opened(text(2), { extent0: extent, extent1: extent }));
  const three = { extent0: extent, extent1: extent, extent2: extent };
  await t.rejects(opened(text(3), three), { code: 'FAILED', message: /more than 32 MiB/ });
});

t.test('a snapshot reads what it does not have from its parent', async (t) => {
  const settings = ['parentFileNameHint="base.vmdk"'];
  const parent = '0000abcd';
  const child = (lines: string[]): Buffer => vmdkDescriptor(lines, { parent, settings });
  const base = patternBytes(0, SIZE - 1024, 5);
  const parentDisk = (): Disk => frontDisk({ ...asRaw(diskOf(base, 10)), identity: parent }, { readOnly: true });
  const one = hostedVmdk(GRAINS, { ...fields, descriptor: child([`RW ${SIZE / 512} SPARSE "x"`]) });
  const expected = Buffer.concat([base, Buffer.alloc(1024)]);
  for (const [number, each] of GRAINS) each.copy(expected, number * GRAIN);
  const disk = await opened(one.bytes, { backing: parentDisk() });
  t.ok((await read(disk, 0, SIZE)).equals(expected), 'zeros behind the end of the parent');
  await t.rejects(opened(one.bytes), { code: 'NOT_FOUND', message: /'base.vmdk'/ });
  const half = hostedVmdk(new Map([[1, grain(1, 8)]]), { ...fields, size: 8 * GRAIN, descriptor: null });
  const split = child(['RW 64 SPARSE "a"', 'RW 64 SPARSE "b"', 'RW 400 SPARSE "c"']);
  const far = hostedVmdk(new Map(), { ...fields, size: 400 * 512, descriptor: null });
  const disks = { extent0: diskOf(half.bytes), extent1: diskOf(half.bytes, 8), extent2: diskOf(far.bytes, 9) };
  const joined = await opened(split, { ...disks, backing: parentDisk() });
  const bytes = Buffer.concat([base, Buffer.alloc(1 << 20)]).subarray(0, (64 + 64 + 400) * 512);
  for (const number of [1, 9]) grain(1, 8).copy(bytes, number * GRAIN);
  t.ok((await read(joined, 0, bytes.length)).equals(bytes), 'each extent has its part of the parent');
  t.equal(disk.identity, '12345678', 'it can be a parent itself');
  const other = { code: 'FAILED', message: /parent has the content id 12345678, not 0000abcd/ };
  await t.rejects(opened(one.bytes, { backing: disk }), other);
  const without = { code: 'FAILED', message: /content id none/ };
  await t.rejects(opened(one.bytes, { backing: diskOf(base) }), without);
});

t.test('the VMDK in an OVA', async (t) => {
  const image = streamVmdk(GRAINS, fields).bytes;
  const ova = (...names: string[]): Buffer => {
    const disks = names.map((name) => tarMember(name, image));
    return Buffer.concat([tarMember('machine.ovf', '<Envelope/>'), ...disks, tarEnd]);
  };
  const raw = await vmdk.open({ ...context, disks: { file: diskOf(ova('machine-disk1.VMDK')) } });
  t.match(raw.map?.map.files, [{ fd: 7, delta: 1536 }], 'in the one file');
  const disk = await opened(ova('machine-disk1.VMDK'));
  t.ok((await read(disk, 0, SIZE)).equals(wholeDisk()));
  await t.rejects(opened(ova('b.vmdk', 'a.vmdk')), {
    code: 'USAGE',
    message: /2 members with the name of a VMDK/,
    hint: "name one with vmdk:tar:IMAGE and --option file/member=NAME: 'b.vmdk', 'a.vmdk'",
  });
  await t.rejects(opened(ova('a.vmdk.gz')), { code: 'USAGE', message: /no member/, hint: /'a.vmdk.gz'/ });
});

t.test(`hostile images (FUSETAP_TEST_SEED=${seed})`, async (t) => {
  let served = 0;
  const check = async (bytes: Buffer): Promise<void> => {
    const disks = { file: diskOf(bytes) };
    let disk: Disk | null = null;
    const isServed = await refusesOrServes(
      async () => {
        const raw = await vmdk.open({ ...context, disks });
        disk = frontDisk(raw, { readOnly: true });
        return raw;
      },
      new Map([[7, bytes.length]]),
    );
    if (!isServed || disk === null) return;
    served += 1;
    await readAllOver(disk);
  };
  const hosted = hostedVmdk(GRAINS, fields);
  const stream = streamVmdk(GRAINS, fields);
  const places = [4, 8, 12, 20, 28, 36, 44, 56, 77];
  const tables = [...hosted.tables, hosted.directory, hosted.directory + 4].filter((place) => place > 0);
  await fc.assert(fc.asyncProperty(mutated(hosted.bytes, [...places, ...tables]), check), { seed, numRuns: 1000 });
  const end = stream.bytes.length - 1024;
  const inStream = [...places.map((place) => end + place), ...stream.grains.values(), ...stream.tables];
  await fc.assert(fc.asyncProperty(mutated(stream.bytes, inStream), check), { seed, numRuns: 1000 });
  await fc.assert(fc.asyncProperty(randomImage(hosted.bytes.subarray(0, 512)), check), { seed, numRuns: 300 });
  t.ok(served > 20, `${served} were served`);
});

/** Reads here and there: each read has its bytes, or a proper error. */
async function readAllOver(disk: Disk): Promise<void> {
  for (const offset of [0, GRAIN, 3 * GRAIN + 5, 39 * GRAIN, Math.max(0, disk.size - 100)]) {
    try {
      await disk.read(Buffer.alloc(100), offset);
      await disk.extents(offset, 1 << 20);
    } catch (error) {
      if ((error as { code?: string }).code !== 'FAILED') throw error;
    }
  }
}
