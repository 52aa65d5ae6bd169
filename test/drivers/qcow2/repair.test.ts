/** Repairs of images: QEMU finds them clean, and their disks have the same bytes as before, whenever the repair was stopped. */
import { spawnSync } from 'node:child_process';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import { checkImage } from '../../../drivers/qcow2/check.js';
import qcow2 from '../../../drivers/qcow2/index.js';
import { repairImage, repairLeaks } from '../../../drivers/qcow2/repair.js';
import { bufferDisk } from '../../conformance/buffer-disk.js';
import { randomNumbers, seedOf } from '../../rules/random.js';
import { qemuImg, qemuIo, whyNoQemu } from '../qemu.js';
import { anatomyOf, type Random } from './broken-images.js';
import { makeQemuImage, openFileDisk, qemuCheck, RECIPE_NAMES } from './qemu-images.js';
import { afterKill, afterPowerCut, RecordedImage } from './recorded-image.js';

t.setTimeout(240_000);
const skip = whyNoQemu();

const { signal } = new AbortController();
const repair = (file: Disk): Promise<string[]> => repairImage({ disks: { file }, signal, progress: () => {} });

async function withFile<Result>(path: string, work: (image: Disk) => Promise<Result>): Promise<Result> {
  const image = await openFileDisk(path, { readOnly: false });
  try {
    return await work(image);
  } finally {
    await image.close();
  }
}

function isSameDisk(a: string, b: string): boolean {
  return spawnSync('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', a, b]).status === 0;
}

function markDirty(image: Buffer): void {
  image.writeUInt8((image[79] as number) | 1, 79);
}

/** Ruins refcounts: those of a cluster, whole blocks, or the table. */
function ruinRefcounts(image: Buffer, random: Random): void {
  const { blocks, refcountTable, clusterBytes } = anatomyOf(image);
  const block = blocks[random(blocks.length)] ?? refcountTable;
  const bytes = Buffer.from(Array.from({ length: 16 }, () => random(256)));
  const ways = [
    () => image.fill(0, block, block + clusterBytes),
    () => image.fill(bytes, block, block + clusterBytes),
    () => bytes.copy(image, block + random(Math.min(clusterBytes - 16, Math.ceil(image.length / clusterBytes)))),
    () => image.writeUInt8(0, block + random(16)),
    () => image.fill(0, refcountTable, refcountTable + clusterBytes),
    () => image.fill(bytes, refcountTable, refcountTable + 8 * (1 + random(4))),
  ];
  ways[random(ways.length)]?.();
}

/** Changes bits 63 of the active tables: they may be wrong in a dirty image. */
function ruinMarks(image: Buffer, random: Random): void {
  const { entries, l1 } = anatomyOf(image);
  for (const at of [l1, ...entries.filter(() => random(4) === 0)]) {
    const isCompressed = ((image[at] as number) & 0x40) !== 0;
    if (!isCompressed && at !== l1) image[at] = (image[at] as number) ^ 0x80;
    else if (at === l1 && image.readBigUInt64BE(at) !== 0n) image[at] = (image[at] as number) ^ 0x80;
  }
}

t.test('a dirty image with any refcounts becomes a clean image with the same disk', { skip }, async (t) => {
  const random = randomNumbers(seedOf(t));
  for (const name of RECIPE_NAMES) {
    if (name === 'version 2') continue;
    await t.test(name, async (t) => {
      const path = makeQemuImage(name, t.testdir());
      const copy = `${path}.copy`;
      await copyFile(path, copy);
      for (let round = 0; round < 2; round++) {
        const image = await readFile(copy);
        markDirty(image);
        ruinRefcounts(image, random);
        if (!/data file|extended/.test(name)) ruinMarks(image, random);
        await writeFile(path, image);
        const [remark = '', ...others] = await withFile(path, repair);
        t.match(remark, /^the image was not closed cleanly: its refcounts were counted, and /);
        t.same(others, []);
        t.match(qemuCheck(path), { status: 0, corruptions: 0, leaks: 0 }, remark);
        t.match(await withFile(path, checkImage), { isDirty: false, corruptionCount: 0, leaks: { clusters: 0 } });
        t.ok(isSameDisk(path, copy), 'the same disk');
        t.same(await withFile(path, repair), [], 'nothing is left to do');
      }
    });
  }
});

t.test('an image that QEMU has left dirty is repaired', { skip }, async (t) => {
  const path = join(t.testdir(), 'a.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'lazy_refcounts=on,cluster_size=4k', path, '64M');
  const commands = ['write -P 5 1M 2M', 'write -P 6 40M 100k', 'flush', 'abort'].flatMap((command) => ['-c', command]);
  spawnSync('qemu-io', ['-f', 'qcow2', ...commands, path]);
  t.match(await withFile(path, checkImage), { isDirty: true });
  t.match(await withFile(path, repair), [/made anew$/]);
  t.match(qemuCheck(path), { status: 0 });
  for (const command of ['read -P 5 1M 2M', 'read -P 6 40M 100k', 'read -P 0 3M 1M']) qemuIo('qcow2', path, command);
  qemuIo('qcow2', path, 'write -P 7 0 60M');
  t.match(qemuCheck(path), { status: 0 });
});

t.test('refcounts that are right, or only too large, stay where they are', { skip }, async (t) => {
  const path = makeQemuImage('snapshots', t.testdir());
  const right = await readFile(path);
  const dirty = Buffer.from(right);
  markDirty(dirty);
  await writeFile(path, dirty);
  t.match(await withFile(path, repair), [/and are right$/]);
  t.ok((await readFile(path)).equals(right));
  const { blocks } = anatomyOf(dirty);
  dirty.writeUInt16BE(7, (blocks[0] as number) + 2 * 100);
  await writeFile(path, dirty);
  t.match(await withFile(path, repair), [/and corrected$/]);
  t.ok((await readFile(path)).equals(right));
});

t.test('images that are clean, corrupt or of version 2 are not touched', { skip }, async (t) => {
  const path = makeQemuImage('plain', t.testdir());
  const image = await readFile(path);
  const untouched = async (bytes: Buffer): Promise<void> => {
    await writeFile(path, bytes);
    t.same(await withFile(path, repair), []);
    t.ok((await readFile(path)).equals(bytes));
  };
  await untouched(image);
  image.writeUInt8(3, 79);
  await untouched(image);
  await untouched(await readFile(makeQemuImage('version 2', t.testdir())));
});

t.test('an image that contradicts itself is refused, and not touched', { skip }, async (t) => {
  const image = await readFile(makeQemuImage('plain', t.testdir()));
  markDirty(image);
  const { entries, l1, blocks } = anatomyOf(image);
  // the first one has no place: it was discarded
  const [, first, second] = entries as [number, number, number];
  const cases: [RegExp, (bytes: Buffer) => void][] = [
    [
      /entry \d+ of the L2 table at byte \d+ is in cluster \d+, where data of other entries is/,
      (bytes) => {
        bytes.copy(bytes, second, first, first + 8);
        bytes.writeUInt16BE(0, blocks[0] as number);
      },
    ],
    [/is in cluster 3, where metadata is too/, (bytes) => bytes.writeBigUInt64BE(BigInt(l1) | (1n << 63n), first)],
    [/behind the end of the image/, (bytes) => bytes.writeBigUInt64BE(0x8000_0100_0000_0000n, l1)],
    [/names data at byte \d+, far behind its end/, (bytes) => bytes.writeBigUInt64BE(0x8000_0100_0000_0000n, first)],
  ];
  for (const [message, change] of cases) {
    const bytes = Buffer.from(image);
    change(bytes);
    const recorded = new RecordedImage(bytes);
    await t.rejects(repair(recorded.disk), { code: 'DENIED', message, hint: /mode r.*qemu-img check -r all/ });
    t.same(recorded.calls, []);
  }
});

t.test('an image whose size is older than its tables gets its size', { skip }, async (t) => {
  const path = makeQemuImage('plain', t.testdir());
  const image = await readFile(path);
  markDirty(image);
  // the last cluster is data of 5 MiB to 5.1 MiB
  await writeFile(path, image.subarray(0, image.length - 65_536));
  t.match(await withFile(path, checkImage), { beyondEnd: 1, corruptionCount: 0 });
  t.match(await withFile(path, repair), [/refcounts were counted/]);
  t.match(qemuCheck(path), { status: 0 });
  t.equal((await readFile(path)).length, image.length);
});

t.test('leaks are freed, and entries say again that a refcount is 1', { skip }, async (t) => {
  for (const name of ['plain', 'version 2', 'refcounts of 1 bits', 'refcounts of 64 bits']) {
    const path = makeQemuImage(name, t.testdir());
    const image = await readFile(path);
    const copy = `${path}.copy`;
    const { entries, clusterBytes } = anatomyOf(image);
    const data = entries.filter((at) => ((image[at] as number) & 0x80) !== 0);
    image.fill(0, data[0], (data[0] as number) + 24);
    await writeFile(path, image);
    await writeFile(copy, image);
    const { leaks } = await withFile(path, (disk) => repairLeaks(disk));
    t.match(leaks, { clusters: 3, bytes: 3 * clusterBytes, ranges: [{ length: 3 * clusterBytes }] }, name);
    t.match(qemuCheck(path), { status: 0, leaks: 0, corruptions: 0 }, name);
    t.ok(isSameDisk(path, copy), name);
  }
  const path = makeQemuImage('plain', t.testdir());
  const image = await readFile(path);
  image.writeUInt8(0, anatomyOf(image).entries[1] as number);
  await writeFile(path, image);
  t.match(await withFile(path, (disk) => repairLeaks(disk)), { marked: 1, leaks: { clusters: 0 } });
  t.match(qemuCheck(path), { status: 0 });
});

t.test('leaks of an image with corruptions are not freed: they may be data', { skip }, async (t) => {
  const image = await readFile(makeQemuImage('plain', t.testdir()));
  image.writeUInt8(0x20, anatomyOf(image).l1);
  const recorded = new RecordedImage(image);
  await t.rejects(repairLeaks(recorded.disk), { code: 'DENIED' });
  t.same(recorded.calls, []);
});

/** The bytes that the driver shows. */
async function contentOf(image: Buffer): Promise<Buffer> {
  const file = frontDisk(bufferDisk(image), { readOnly: true });
  const rest = { files: {}, memory: null, state: null, readOnly: true, isRepaired: false, options: {} };
  const raw = await qcow2.open({ ...rest, disks: { file } });
  const bytes = Buffer.alloc(raw.size);
  await raw.activate?.();
  await raw.read(bytes, 0);
  return bytes;
}

/** Makes refcounts too large: those of clusters that are not used, and of one that is. For refcounts of 32 bits. */
function leak(image: Buffer): void {
  const { entries, blocks, clusterBytes } = anatomyOf(image);
  const perBlock = clusterBytes / 4;
  const refcountAt = (cluster: number): number =>
    (blocks[Math.floor(cluster / perBlock)] as number) + (cluster % perBlock) * 4;
  for (let cluster = 0; cluster < blocks.length * perBlock; cluster += 7) {
    if (image.readUInt32BE(refcountAt(cluster)) === 0) image.writeUInt32BE(3, refcountAt(cluster));
  }
  const at = entries.find((entry) => ((image[entry] as number) & 0x80) !== 0) as number;
  image.writeUInt8((image[at] as number) & 0x7f, at);
  image.writeUInt32BE(2, refcountAt(Number(image.readBigUInt64BE(at)) / clusterBytes));
}

/** A dirty image with snapshots and many tables. */
function ruinedImage(t: Test, seed: number, isLeaky: boolean): Promise<Buffer> {
  const path = join(t.testdir(), 'a.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=1k,refcount_bits=32', path, '2M');
  qemuIo('qcow2', path, 'write -P 1 0 700k');
  qemuImg('snapshot', '-c', 'one', path);
  for (const command of ['write -P 2 100k 50k', 'write -P 3 1M 20k', 'write -c -P 4 1500k 4k']) {
    qemuIo('qcow2', path, command);
  }
  return readFile(path).then((image) => {
    const random = randomNumbers(seed);
    markDirty(image);
    if (isLeaky) leak(image);
    else {
      ruinRefcounts(image, random);
      ruinMarks(image, random);
    }
    return image;
  });
}

async function checkRepaired(
  t: Test,
  image: Buffer,
  { content, what }: { content: Buffer; what: string },
): Promise<void> {
  const recorded = new RecordedImage(image);
  await repair(recorded.disk);
  const again = new RecordedImage(recorded.bytes);
  const found = await checkImage(again.disk);
  if (found.isDirty || found.corruptionCount > 0 || found.leaks.clusters > 0)
    t.fail(`${what}: ${JSON.stringify(found)}`);
  if (!(await contentOf(again.bytes)).equals(content)) t.fail(`${what}: other bytes`);
}

t.test('a repair that is killed after any call, or ends with a power cut, is done again', { skip }, async (t) => {
  const seed = seedOf(t);
  const random = randomNumbers(seed);
  for (let round = 0; round < 6; round++) {
    const start = await ruinedImage(t, seed + round, round % 2 === 0);
    const content = await contentOf(start);
    const whole = new RecordedImage(start);
    await repair(whole.disk);
    t.ok(whole.calls.length > 3);
    for (let n = 0; n <= whole.calls.length; n++) {
      const calls = whole.calls.slice(0, n);
      await checkRepaired(t, afterKill(start, calls), { content, what: `killed after call ${n} of round ${round}` });
      for (let i = 0; i < 3; i++) {
        const cut = afterPowerCut(start, calls, random);
        await checkRepaired(t, cut, { content, what: `power cut after call ${n} of round ${round}` });
      }
    }
  }
});
