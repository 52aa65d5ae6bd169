/** Checks docs/drivers.md: its driver passes the suite, and its tables match the code. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { ImageDriver as Driver } from '../../drivers/image-driver.js';
import { checkDriver, loadThirdParty } from '../../drivers/third-party.js';
import { type DiskFactory, diskSuite, pieceBytes } from '../conformance/index.js';
import { type Builder, bySegments, graphFactory, makeFile, openTreeDisk } from '../drivers/graph-factory.js';
import { readExample } from './example.js';

const directory = mkdtempSync(join(tmpdir(), 'docs-'));
t.teardown(() => rmSync(directory, { recursive: true }));
const path = join(directory, 'concat.mjs');
writeFileSync(path, readExample('drivers.md', 'concat.js'));
const { default: concat } = (await import(path)) as { default: Driver };

const factory: DiskFactory = async ({ size, pieces, readOnly }) => {
  const holder = await mkdtemp(join(directory, 'disk-'));
  // three parts, so that requests span more than two
  const lengths = [Math.floor(size / 3), Math.floor(size / 3), size - 2 * Math.floor(size / 3)];
  const parts = lengths.map((_, i) => join(holder, String(i)));
  for (const [i, length] of lengths.entries()) {
    const file = await open(parts[i] as string, 'w');
    await file.truncate(length);
    await file.close();
  }
  const context = { image: null, memory: null, state: null, isRepaired: true, options: { parts: parts.join(':') } };
  const whole = await concat.open({ ...context, readOnly: false });
  for (const piece of pieces) await whole.write?.(pieceBytes(piece), piece.offset, { durable: false });
  await whole.close();
  const reopen = () => concat.open({ ...context, readOnly });
  return { raw: await reopen(), reopen, dispose: () => rm(holder, { recursive: true }) };
};

diskSuite({
  name: 'concat.js',
  test: t,
  factory,
  abilities: { maxSizeBytes: 2 ** 42, holes: false, shrink: false },
  runs: 6,
});

const XOR_KEY = 90;
const xorPath = join(directory, 'xor.mjs');
writeFileSync(xorPath, readExample('drivers.md', 'xor.js'));
const { default: xor } = (await import(xorPath)) as { default: Driver };

const xorFactory: DiskFactory = async ({ size, pieces, readOnly }) => {
  const holder = await mkdtemp(join(directory, 'disk-'));
  // zeros of the disk are the key in the image
  const made = await open(join(holder, 'disk.img'), 'w+');
  await made.write(Buffer.alloc(size, XOR_KEY), 0, size, 0);
  const file = { path: join(holder, 'disk.img'), sizeBytes: size, kind: 'file' } as const;
  const context = { memory: null, state: null, isRepaired: true, options: {} };
  const whole = await xor.open({ ...context, image: { ...file, fd: made.fd }, readOnly: false });
  for (const piece of pieces) await whole.write?.(pieceBytes(piece), piece.offset, { durable: false });
  await made.close();
  const handed = await open(file.path, readOnly ? 'r' : 'r+');
  const reopen = () => xor.open({ ...context, image: { ...file, fd: handed.fd }, readOnly });
  const dispose = async (): Promise<void> => {
    await handed.close();
    await rm(holder, { recursive: true });
  };
  return { raw: await reopen(), reopen, dispose };
};

diskSuite({
  name: 'xor.js',
  test: t,
  factory: xorFactory,
  abilities: { maxSizeBytes: 2 ** 24, holes: false, shrink: false },
  runs: 6,
});

const headedPath = join(directory, 'headed.mjs');
writeFileSync(headedPath, readExample('drivers.md', 'headed.js'));

const HEADER_BYTES = 4096;

function header(size: number, word = 'HEADED 1'): Buffer {
  const bytes = Buffer.alloc(16, word, 'latin1');
  bytes.writeBigUInt64LE(BigInt(size), 8);
  return bytes;
}

/** The image in two files, so that requests cross from one to the other below the driver. */
const headedBuilder: Builder = async (size, holder) => {
  const first = HEADER_BYTES + Math.ceil(size / 2);
  const [one, two] = [join(holder, 'one'), join(holder, 'two')];
  await makeFile(one, first, [0, header(size)]);
  // a byte more: what is behind the disk is not shown
  await makeFile(two, HEADER_BYTES + size - first + 1);
  const below = { driver: 'concat', options: {}, on: { part0: { file: one }, part1: { file: two } } };
  return {
    graph: { driver: headedPath, options: {}, on: { file: below } },
    runs: [
      { path: one, offset: 0, start: HEADER_BYTES, size: first - HEADER_BYTES },
      { path: two, offset: first - HEADER_BYTES, start: 0, size: HEADER_BYTES + size - first },
    ],
  };
};

const headedAbilities = { maxSizeBytes: 2 ** 42, holes: false, shrink: false };
diskSuite({ name: 'headed.js', test: t, factory: graphFactory(headedBuilder), abilities: headedAbilities, runs: 6 });
diskSuite({
  name: 'headed.js by its segments',
  test: t,
  factory: graphFactory(headedBuilder, { wrap: bySegments }),
  abilities: headedAbilities,
  runs: 6,
});

t.test('the driver over a disk refuses images and options of others', async (t) => {
  const opened = async (bytes: Uint8Array, size: number, options = {}) => {
    const path = join(t.testdir({}), 'image');
    await makeFile(path, size, [0, bytes.subarray(0, size)]);
    const raw = await openTreeDisk({ driver: headedPath, options, on: { file: { file: path } } }, true);
    await raw.close();
    return raw.size;
  };
  t.equal(await opened(header(512), HEADER_BYTES + 512), 512);
  const refused: [Buffer, number, object?][] = [
    [header(512, 'HEADED 2'), HEADER_BYTES + 512],
    [header(0), HEADER_BYTES + 512],
    [header(513), HEADER_BYTES + 512],
    [header(2 ** 60), HEADER_BYTES + 512],
    [header(512), 15],
    [header(512), HEADER_BYTES + 512, { size: '512' }],
  ];
  for (const [bytes, size, options] of refused) {
    await t.rejects(opened(bytes, size, options), { code: 'USAGE', hint: /./ }, `${size}`);
  }
});

t.test('the driver of the page is what the contract asks for, in about 30 lines', async (t) => {
  checkDriver(concat, 'concat.js');
  checkDriver(xor, 'xor.js');
  const lines = readExample('drivers.md', 'concat.js')
    .split('\n')
    .filter((line) => line.trim() !== '').length;
  t.ok(lines <= 42, `${lines} lines`);
  const driver = await loadThirdParty(path);
  const context = { files: {}, disks: {}, memory: null, state: null, readOnly: false, isRepaired: true, options: {} };
  await t.rejects(driver.open(context), { code: 'USAGE', hint: /parts=/ });
  await t.rejects(driver.open({ ...context, options: { parts: '/nowhere' } }), { code: 'NOT_FOUND' });
});
