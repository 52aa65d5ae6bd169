/** The replay of the log in memory: what it changes, which entries count, and what is refused. The file is never written. */
import { copyFile, open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { randomNumbers, seedOf } from '../../rules/random.js';
import { openImageDisk } from '../graph-factory.js';
import {
  BAT_AT,
  batEntry,
  type HeaderFields,
  LOG_AT,
  LOG_GUID,
  type LogChangeFields,
  type LogEntryFields,
  logEntry,
  PAGE,
  REGIONS_AT,
  seal,
  u64,
  type VhdxFields,
  vhdxHeader,
} from '../images/vhdx.js';
import { compareWithQemu, qemuImg, qemuIo, whyNoQemu } from '../qemu.js';
import { bytesAt, MIB, openBytes, plainImage } from './over.js';

t.setTimeout(120_000);
const OTHER_GUID = 'ffffffff-89ab-cdef-0123-456789abcdef';
const LOG_END = MIB;

/** A page of the BAT. */
function batPage(...entries: bigint[]): Buffer {
  const page = Buffer.alloc(PAGE);
  u64(...entries).copy(page);
  return page;
}

/** Changes the place of block 1. */
const toBat = (...entries: bigint[]): LogChangeFields => ({ offset: BAT_AT, page: batPage(...entries) });
const BOTH = toBat(batEntry(6, 5), batEntry(6, 4), 0n);
const BOTH_BYTES = [2, 1, 0];
const FILE_BYTES = [1, 0, 2];

/** Entries at places of the log. */
function ring(...entries: [at: number, entry: Buffer][]): Buffer {
  const log = Buffer.alloc(MIB);
  for (const [at, entry] of entries) {
    entry.copy(log, at);
    if (at + entry.length > LOG_END) entry.copy(log, 0, LOG_END - at);
  }
  return log;
}

const one = (fields: Partial<LogEntryFields> = {}): Buffer => logEntry({ sequence: 5, changes: [BOTH], ...fields });

async function shows(t: Test, log: Buffer, bytes: readonly number[], name: string): Promise<void> {
  const disk = await openBytes(plainImage({ log }));
  t.same(await bytesAt(disk, [0, MIB, 2 * MIB]), bytes, name);
}

async function refused(t: Test, fields: Partial<VhdxFields>, message: RegExp, code = 'FAILED'): Promise<void> {
  await t.rejects(openBytes(plainImage(fields)), { code, message, hint: /./ }, String(message));
}

t.test('an entry is replayed', async (t) => {
  await shows(t, one(), BOTH_BYTES, 'at the start of the log');
  const at = 8 * PAGE;
  await shows(t, ring([at, one({ tail: at })]), BOTH_BYTES, 'elsewhere');
  const end = LOG_END - PAGE;
  await shows(t, ring([end, one({ tail: end })]), BOTH_BYTES, 'across the end of the ring');
  await shows(t, one({ changes: [] }), FILE_BYTES, 'without changes');
  await shows(t, one({ changes: [{ offset: BAT_AT, zeros: PAGE }] }), [0, 0, 0], 'zeros');
  await shows(t, one({ changes: [{ offset: BAT_AT, zeros: PAGE }, BOTH] }), BOTH_BYTES, 'the last change counts');
  await shows(
    t,
    one({ changes: [BOTH, { offset: BAT_AT - PAGE, zeros: 3 * PAGE }] }),
    [0, 0, 0],
    'also zeros over a page',
  );
});

t.test('regions, metadata and data can be in the log', async (t) => {
  const image = plainImage();
  const pages = [REGIONS_AT[0], 2 * MIB, 2 * MIB + 65_536].map((offset): LogChangeFields => {
    return { offset, page: Buffer.from(image.subarray(offset, offset + PAGE)) };
  });
  const damaged = [0, 1].map((i): [number, Buffer] => [REGIONS_AT[i] as number, Buffer.alloc(PAGE)]);
  const parts = [...damaged, [2 * MIB, Buffer.alloc(PAGE)], [2 * MIB + 65_536, Buffer.alloc(PAGE)]] as const;
  const data = { offset: 4 * MIB + 8 * PAGE, page: Buffer.alloc(PAGE, 9) };
  const zeros = { offset: 5 * MIB + PAGE, zeros: 2 * PAGE };
  const disk = await openBytes(plainImage({ log: one({ changes: [...pages, data, zeros] }), parts }));
  const places = [0, 8 * PAGE - 1, 8 * PAGE, 9 * PAGE - 1, 9 * PAGE, MIB, 2 * MIB, 2 * MIB + PAGE, 2 * MIB + 3 * PAGE];
  t.same(await bytesAt(disk, places), [1, 1, 9, 9, 1, 0, 2, 0, 2]);
  const found = await disk.places.locate(0, 3 * MIB);
  const unknown = found.filter(({ state }) => state === 'unknown').map(({ offset, length }) => [offset, length]);
  t.same(
    unknown,
    [
      [8 * PAGE, PAGE],
      [2 * MIB + PAGE, 2 * PAGE],
    ],
    'what the log replaces is nowhere in the file',
  );
  t.equal(found.filter(({ state }) => state === 'data').length, 4);
  t.ok((await disk.extents(0, 3 * MIB)).some(({ offset, hole }) => offset === MIB && hole));
});

t.test('the active sequence', async (t) => {
  const old = toBat(0n, 0n, 0n);
  const entries = (...all: Partial<LogEntryFields>[]): [number, Buffer][] =>
    all.map((fields, i) => [i * 2 * PAGE, one({ sequence: 5 + i, ...fields })]);
  await shows(t, ring(...entries({ changes: [old] }, {})), BOTH_BYTES, 'later entries count');
  await shows(t, ring(...entries({}, { tail: 2 * PAGE, changes: [] })), FILE_BYTES, 'from the tail of the last one on');
  await shows(t, ring(...entries({}, { guid: OTHER_GUID, changes: [old] })), BOTH_BYTES, 'not those of another log');
  await shows(t, ring(...entries({}, { sequence: 7, changes: [old] })), BOTH_BYTES, 'numbers follow one another');
  const second = one({ sequence: 90, tail: 64 * PAGE, changes: [old] });
  await shows(t, ring([0, one()], [64 * PAGE, second]), [0, 0, 0], 'the sequence with the highest number');
  await shows(t, ring([0, second], [64 * PAGE, one({ tail: 64 * PAGE })]), BOTH_BYTES, 'whose tail is in it');
  const torn = one({ sequence: 6, changes: [old] }).fill(0xff, PAGE + 100, PAGE + 200);
  await shows(t, ring([0, one()], [2 * PAGE, torn]), BOTH_BYTES, 'without the last entry, if it is torn');
});

t.test('logs that cannot be replayed', async (t) => {
  const none = /not empty, and has no valid sequence/;
  await refused(t, { log: Buffer.alloc(0) }, none);
  await refused(t, { log: one({ guid: OTHER_GUID }) }, none);
  await refused(t, { log: one().fill(0xff, PAGE + 100, PAGE + 200) }, none);
  await refused(t, { log: one({ tail: 2 * PAGE }) }, none);
  await refused(t, { log: one({ tail: 512 }) }, none);
  await refused(t, { log: one({ sequence: 0 }) }, none);
  const flushed = 7 * MIB;
  await refused(
    t,
    { log: one({ flushed }) },
    /cut off: its log was written when the file had 7340032 bytes, not 6291456/,
  );
  await refused(t, { log: one({ flushed: (1n << 64n) - 1n }) }, /cut off/);
  await refused(t, { log: one({ last: (1n << 64n) - 1n }) }, /would make the file 18446744073709551615 bytes/);
  const page = Buffer.alloc(PAGE);
  for (const offset of [100, 1n << 63n, (1n << 53n) - 4096n]) {
    await refused(t, { log: one({ changes: [{ offset, page }] }) }, /no place for whole pages/);
  }
  for (const zeros of [100, 1n << 63n]) {
    await refused(t, { log: one({ changes: [{ offset: BAT_AT, zeros }] }) }, /no place for whole pages/);
  }
  const header = (fields: HeaderFields) => ({ log: one(), header: fields });
  await refused(t, header({ logVersion: 1 }), /the log of the VHDX has version 1/, 'UNSUPPORTED');
  await refused(t, header({ logBytes: 17 * MIB }), /at most 16777216 bytes are/, 'UNSUPPORTED');
  await refused(t, header({ logBytes: 16 * MIB }), /is not in the file of 6291456 bytes/);
  await refused(t, header({ logBytes: 0 }), /is not in the file/);
  await refused(t, header({ logAt: 2 ** 40 }), /is not in the file/);
});

t.test('a replay may make the file larger', async (t) => {
  const log = one({ changes: [toBat(batEntry(6, 6), 0n, 0n)], last: 7 * MIB });
  t.same(
    await bytesAt(await openBytes(plainImage({ log })), [0, MIB - 1]),
    [0, 0],
    'zeros, which the file does not have',
  );
  const page = { offset: 6 * MIB + PAGE, page: Buffer.alloc(PAGE, 8) };
  const written = one({ changes: [toBat(batEntry(6, 6), 0n, 0n), page], last: 7 * MIB });
  t.same(await bytesAt(await openBytes(plainImage({ log: written })), [0, PAGE, 2 * PAGE]), [0, 8, 0]);
});

t.test('a log that is full of zeros costs little', async (t) => {
  // each entry has as many descriptors as one sector takes
  const changes = Array.from({ length: 126 }, (_, i) => ({ offset: 4 * MIB + i * PAGE, zeros: 2 ** 50 + i * PAGE }));
  const entries = Array.from({ length: MIB / PAGE }, (_, i): [number, Buffer] => {
    return [i * PAGE, logEntry({ sequence: 5 + i, changes })];
  });
  const start = performance.now();
  const disk = await openBytes(plainImage({ log: ring(...entries) }));
  t.same(await bytesAt(disk, [0, MIB, 2 * MIB]), [0, 0, 0]);
  t.ok(performance.now() - start < 5000);
});

/** An image of QEMU whose last changes of the BAT are in the log only, as when a power cut comes before they are in place. */
async function dirtyImage(path: string, seed: number): Promise<void> {
  const random = randomNumbers(seed);
  qemuImg('create', '-q', '-f', 'vhdx', '-o', 'block_size=1M', path, '40M');
  for (let i = 0; i < 4; i++) qemuIo('vhdx', path, `write -P ${1 + i} ${random(39) * MIB + 512 * random(1000)} 100k`);
  const file = await open(path, 'r+');
  const bytes = await readFile(path);
  const { size } = await file.stat();
  const bat = batOf(bytes);
  const page = Buffer.from(bytes.subarray(bat, bat + PAGE));
  const old = Buffer.from(page);
  for (let i = 0; i < 40; i++) if (random(2) === 0) old.writeBigUInt64LE(0n, 8 * i);
  const facts = { flushed: size, last: size };
  const first = 3 * PAGE;
  const entries = [
    logEntry({ ...facts, sequence: 11, tail: first, changes: [{ offset: bat, page: old }] }),
    logEntry({
      ...facts,
      sequence: 12,
      tail: first,
      changes: [
        { offset: bat, page },
        { offset: bat + PAGE, zeros: PAGE },
      ],
    }),
  ];
  await file.write(Buffer.concat(entries), 0, undefined, LOG_AT + first);
  await file.write(old, 0, PAGE, bat);
  // above the numbers of QEMU, which begin with a random one of 32 bits
  const header = vhdxHeader({ sequence: 2 ** 40, logGuid: LOG_GUID });
  bytes.copy(header, 16, 64 * 1024 + 16, 64 * 1024 + 48);
  await file.write(seal(header), 0, PAGE, 64 * 1024);
  await file.close();
}

function batOf(bytes: Buffer): number {
  const at = bytes.indexOf(Buffer.from('6677c22d23f600429d64115e9bfd4a08', 'hex'), REGIONS_AT[0]);
  return Number(bytes.readBigUInt64LE(at + 16));
}

t.test('a dirty log of an image of QEMU', { skip: whyNoQemu() }, async (t) => {
  const seed = seedOf(t);
  const [dirty, repaired] = [join(t.testdir(), 'dirty.vhdx'), join(t.testdir(), 'repaired.vhdx')];
  for (let i = 0; i < 4; i++) {
    await dirtyImage(dirty, seed + i);
    const before = await readFile(dirty);
    await copyFile(dirty, repaired);
    qemuImg('check', '-q', '-r', 'all', '-f', 'vhdx', repaired);
    const disk = await openImageDisk('vhdx', dirty, true);
    await compareWithQemu('vhdx', repaired, disk);
    await disk.close();
    t.ok(before.equals(await readFile(dirty)), 'the file is as it was');
    t.notOk(before.equals(await readFile(repaired)), 'QEMU had to repair it');
    await rm(dirty);
  }
});
