/** GPT: what sfdisk makes is read as sfdisk reads it; what is broken is read from the backup or left out. */
import fc from 'fast-check';
import t from 'tap';
import { typeName } from '../../../drivers/partitions/index.js';
import { whyNot } from '../../e2e/fixtures.js';
import { SFDISK_PROGRAMS } from './sfdisk.js';
import { bySfdisk, flawOf, type GptEntry, gptDisk, LINUX, putMbr, SECTOR, signHeader, tableOf } from './tables.js';

const MIB = 1 << 20;
const SIZE = MIB;
const ENTRIES: GptEntry[] = [
  { first: 100, last: 199, name: 'root' },
  { first: 200, last: 200 },
];
const ARRAY = 2 * SECTOR;
/** the numbers that are served */
const numbers = async (disk: Buffer, sizeBytes?: number): Promise<number[]> =>
  (await tableOf(disk, sizeBytes)).partitions.map(({ number }) => number);

t.test('names of types', async (t) => {
  t.equal(typeName('83'), 'Linux filesystem');
  t.equal(typeName(LINUX), 'Linux filesystem');
  t.equal(typeName('00'), null);
  t.equal(typeName('773F91EF-66D4-49B5-BD83-D683BF40AD16'), "Linux user's home");
});

t.test('as sfdisk makes it', { skip: whyNot(...SFDISK_PROGRAMS) }, async (t) => {
  const script = 'label: gpt\n,10M,L\n5: size=5M, type=U\nname="a é ☃", size=3M, type=S\n';
  const { disk, partitions } = bySfdisk(script, 64 * MIB);
  const { table, partitions: found, notes } = await tableOf(disk);
  t.same({ table, notes }, { table: 'gpt', notes: [] });
  t.equal(found.length, 3);
  const wanted = partitions.map(({ node, start, size, type, name = null, uuid }) => {
    const number = Number(/\d+$/.exec(node)?.[0]);
    const range = { number, offset: start * SECTOR, size: size * SECTOR };
    return { ...range, type, name, uuid: uuid?.toLowerCase(), readOnly: false };
  });
  t.same(
    found,
    wanted.sort((a, b) => a.number - b.number),
  );
});

t.test('with larger sectors', async (t) => {
  for (const sectorBytes of [1024, 2048, 4096] as const) {
    const disk = gptDisk(4 * MIB, [{ first: 100, last: 199, name: 'big' }], sectorBytes);
    const whole = { table: 'gpt', partitions: [{ offset: 100 * sectorBytes, size: 100 * sectorBytes, name: 'big' }] };
    t.match(await tableOf(disk), { ...whole, notes: [] });
    t.match(await tableOf(disk, disk.byteLength, sectorBytes), { ...whole, notes: [] });
    t.match(await tableOf(disk, disk.byteLength, 512), { table: null, notes: [/no valid GPT: there is no header/] });
    disk.fill(0, sectorBytes, 2 * sectorBytes);
    t.match(await tableOf(disk), { ...whole, notes: [/backup/] });
  }
});

t.test('every byte of the header counts', async (t) => {
  const disk = gptDisk(SIZE, ENTRIES);
  const good = await tableOf(disk);
  t.same({ count: good.partitions.length, notes: good.notes }, { count: 2, notes: [] });
  for (let at = SECTOR; at < SECTOR + 92; at++) {
    const kept = disk.readUInt8(at);
    for (const value of [0, 1, 0x7f, 0x80, 0xff, kept ^ 1]) {
      if (value === kept) continue;
      disk.writeUInt8(value, at);
      const { partitions, notes } = await tableOf(disk);
      t.same(partitions, good.partitions, `byte ${at - SECTOR} = ${value}: from the backup`);
      t.match(notes, [/backup/]);
    }
    disk.writeUInt8(kept, at);
  }
});

t.test('a header that is wrong and has a right checksum', async (t) => {
  for (let at = SECTOR; at < SECTOR + 92; at++) {
    for (const value of [0, 1, 0x10, 0x7f, 0x80, 0xff]) {
      const disk = gptDisk(SIZE, ENTRIES);
      disk.writeUInt8(value, at);
      signHeader(disk, SECTOR);
      const flaw = flawOf(await tableOf(disk), SIZE);
      if (flaw !== null) t.fail(`byte ${at - SECTOR} = ${value}: ${flaw}`);
    }
  }
});

t.test('headers that no disk can have', async (t) => {
  const change: [what: string, at: number, value: bigint, bytes: 4 | 8][] = [
    ['revision 2', 8, 0x20000n, 4],
    ['a header of 91 bytes', 12, 91n, 4],
    ['a header of 513 bytes', 12, 513n, 4],
    ['another place', 24, 2n, 8],
    ['usable sectors behind the disk', 48, BigInt(SIZE / SECTOR), 8],
    ['usable sectors from behind to front', 40, 2040n, 8],
    ['entries behind the disk', 72, BigInt(SIZE / SECTOR - 1), 8],
    ['entries far behind the disk', 72, 2n ** 64n - 1n, 8],
    ['entries of 64 bytes', 84, 64n, 4],
    ['entries of 4 GiB', 84, 0xffffff80n, 4],
    ['4 G of entries', 80, 0xffffffffn, 4],
    ['no entries', 80, 0n, 4],
    ['127 entries of 128', 80, 127n, 4],
  ];
  for (const [what, at, value, bytes] of change) {
    const disk = gptDisk(SIZE, ENTRIES);
    if (bytes === 4) disk.writeUInt32LE(Number(value), SECTOR + at);
    else disk.writeBigUInt64LE(value, SECTOR + at);
    signHeader(disk, SECTOR);
    t.match(await tableOf(disk), { partitions: [{ number: 1 }, { number: 2 }], notes: [/backup/] }, what);
    disk.fill(0, SIZE - SECTOR);
    const isLarger = what === 'usable sectors behind the disk';
    const refused = { table: null, notes: [/has a protective MBR, but no valid GPT/] };
    t.match(await tableOf(disk), isLarger ? { table: 'gpt', notes: [/the disk was cut/] } : refused, what);
  }
});

t.test('no more than a megabyte of entries is read, however large the disk', async (t) => {
  const disk = gptDisk(SIZE, ENTRIES);
  disk.writeUInt32LE(16_384, SECTOR + 80);
  signHeader(disk, SECTOR);
  t.match(await tableOf(disk, 64 * MIB), { table: null, notes: [/has 16384 entries/] });
});

t.test('entries with a wrong checksum are read from the backup', async (t) => {
  const disk = gptDisk(SIZE, ENTRIES);
  disk.writeUInt8(1, ARRAY + 48);
  t.match(await tableOf(disk), {
    partitions: [{ number: 1, name: 'root' }, { number: 2 }],
    notes: [/backup.*checksum/],
  });
  disk.writeUInt8(1, SIZE - 33 * SECTOR + 48);
  t.match(await tableOf(disk), { table: null, partitions: [] });
});

t.test('a disk that has grown, and one that was cut', async (t) => {
  const disk = gptDisk(SIZE, ENTRIES);
  t.same(await numbers(disk, 2 * SIZE), [1, 2], 'the first header says all');
  const cut = await tableOf(disk.subarray(0, 150 * SECTOR));
  t.match(cut, { table: 'gpt', partitions: [{ number: 1, size: 50 * SECTOR, readOnly: true }] });
  t.match(cut.notes, [
    /^the disk was cut: its GPT needs more than/,
    /^partition 1 is read-only/,
    /^partition 2 is left out/,
  ]);
  t.match(await tableOf(disk, SIZE / 2), {
    partitions: [{ readOnly: false }, { readOnly: false }],
    notes: [/was cut/],
  });
});

t.test('ranges that no partition can have are left out', async (t) => {
  const [first, last] = [34, SIZE / SECTOR - 34];
  const disk = gptDisk(SIZE, [
    { first: 200, last: 199 },
    { first: first - 1, last: 300 },
    { first: 300, last: last + 1 },
    { first: 2n ** 64n - 1n, last: 2n ** 64n - 1n },
    { first: 0n, last: 2n ** 64n - 1n },
    { first: 500, last: 599 },
    { first: 599, last: 700 },
    { first: 400, last: 500 },
    { first: 510, last: 511 },
    { first, last: first },
    { first: last, last },
  ]);
  const { partitions, notes } = await tableOf(disk);
  t.same(
    partitions.map(({ number }) => number),
    [6, 7, 8, 9, 10, 11],
  );
  t.equal(notes.length, 8);
  t.match(notes[5], /^partition 7 is read-only: it shares bytes with partition 6$/);
});

t.test('thousands of wrong entries are not thousands of lines', async (t) => {
  const disk = gptDisk(
    SIZE,
    Array.from({ length: 128 }, () => ({ first: 1, last: 0 })),
  );
  const { notes } = await tableOf(disk);
  t.equal(notes.length, 8);
  t.equal(notes.at(-1), 'and 121 more faults');
});

t.test('the MBR decides whether there is a GPT', async (t) => {
  const disk = gptDisk(SIZE, ENTRIES);
  disk.fill(0, 0, SECTOR);
  t.match(await tableOf(disk), { table: null, partitions: [] }, 'without a protective one there is none');
  putMbr(disk, 0, [
    { type: 0x83, start: 300, count: 10 },
    { type: 0xee, start: 1, count: 33 },
  ]);
  t.match(await tableOf(disk), { table: 'gpt', partitions: [{ number: 1 }, { number: 2 }], notes: [/hybrid/] });
});

t.test('names', async (t) => {
  const nameOf = async (name: string): Promise<string | null | undefined> =>
    (await tableOf(gptDisk(SIZE, [{ first: 100, last: 100, name }]))).partitions[0]?.name;
  t.equal(await nameOf('x'.repeat(36)), 'x'.repeat(36), 'that fill their place');
  t.equal(await nameOf('a\0b'), 'a');
  t.equal(await nameOf('\ud800!'), '\ufffd!', 'are Unicode');
  t.equal(await nameOf('\ufeffa'), '\ufeffa');
});

t.test('random entries never give a window outside the disk, or two of one byte', async (t) => {
  const lba = fc.oneof(
    fc.nat(SIZE / SECTOR + 10),
    fc.constantFrom(33, 34, SIZE / SECTOR - 34),
    fc.bigInt(0n, 2n ** 64n - 1n),
  );
  const entries = fc.array(fc.record({ first: lba, last: lba }), { maxLength: 20 });
  const property = fc.assert(
    fc.asyncProperty(entries, async (some) => flawOf(await tableOf(gptDisk(SIZE, some)), SIZE) === null),
    { numRuns: 200 },
  );
  await t.resolves(property);
});

t.test('random bytes never throw', async (t) => {
  const property = fc.assert(
    fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 200 }), fc.nat(SIZE - 200), async (bytes, at) => {
      const disk = gptDisk(SIZE, ENTRIES);
      disk.set(bytes, at % 2 === 0 ? at % 2048 : at);
      signHeader(disk, SECTOR);
      return flawOf(await tableOf(disk), SIZE) === null;
    }),
    { numRuns: 300 },
  );
  await t.resolves(property);
});
