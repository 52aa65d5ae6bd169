/** What QEMU's checker and its reading say of images that are written here. Many cases are bugs of other programs. */
import { open, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import { wrapDisk } from '../../../drivers/filters/wrap-disk.js';
import { openGraph } from '../../../drivers/graph/open-graph.js';
import { patternBytes } from '../../conformance/pattern.js';
import { makeFile, openImageDisk } from '../graph-factory.js';
import { compareWithQemu, qemuImg, qemuIo, whyNoQemu } from '../qemu.js';

const KIB = 1024;
const MIB = 1 << 20;
const skip = whyNoQemu();

function create(t: { testdir(): string }, size: string, options = 'compat=1.1', ...words: string[]): string {
  const image = join(t.testdir(), 'a.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', '-o', options, ...words, image, size);
  return image;
}

/** Opens an image, works with its disk and closes it; then QEMU must see the same bytes, and find no error. */
async function written(image: string, work: (disk: Disk) => Promise<void>): Promise<void> {
  const disk = await openImageDisk('qcow2', image);
  await work(disk);
  await disk.close();
  const text = qemuImg('check', '-f', 'qcow2', image);
  if (!/No errors/.test(text)) throw new Error(text);
  const again = await openImageDisk('qcow2', image, true);
  await compareWithQemu('qcow2', image, again);
  await again.close();
}

/** Opens an image for writing that was not checked, as a large one is. */
async function openUnchecked(path: string): Promise<Disk> {
  const handle = await open(path, 'r+');
  const { size } = await handle.stat();
  const opened = {
    graph: { driver: 'qcow2', options: {}, on: { file: { file: path } } },
    files: { file: { fd: handle.fd, path, sizeBytes: size, kind: 'file' as const } },
    ...{ memories: {}, readOnly: false },
  };
  const raw = await openGraph(opened);
  return frontDisk(wrapDisk(raw, { close: () => raw.close().finally(() => handle.close()) }), { readOnly: false });
}

async function bytesAt(disk: Disk, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  await disk.read(bytes, offset);
  return bytes;
}

async function incompatibleBits(image: string): Promise<number> {
  return (await readFile(image)).readUInt32BE(76);
}

/** Writes a number of 8 bytes into a file. */
async function patch(path: string, at: number, value: bigint): Promise<void> {
  const bytes = await readFile(path);
  bytes.writeBigUInt64BE(value, at);
  await writeFile(path, bytes);
}

/** The place of the first L2 table. */
async function firstL2(path: string): Promise<number> {
  const bytes = await readFile(path);
  const l1 = Number(bytes.readBigUInt64BE(40));
  return Number(bytes.readBigUInt64BE(l1) & 0x00ff_ffff_ffff_fe00n);
}

t.test('a write over compressed clusters frees each host cluster that a stream touches', { skip }, async (t) => {
  const raw = await makeFile(join(t.testdir(), 'raw.img'), 4 * MIB, [0, patternBytes(0, 4 * MIB, 9)]);
  const noise = await readFile(raw);
  // half of each cluster is noise, so streams end in the middle of host clusters
  for (let at = 0; at < noise.length; at += 64 * KIB) noise.fill(0, at, at + 24 * KIB);
  await writeFile(raw, noise);
  const image = join(t.testdirName, 'a.qcow2');
  qemuImg('convert', '-c', '-f', 'raw', '-O', 'qcow2', raw, image);
  await written(image, async (disk) => {
    for (let at = 1000; at < 4 * MIB; at += 200 * KIB) await disk.write(patternBytes(at, 3000, 1), at);
    await disk.zero(MIB, 300 * KIB, { punch: true });
  });
});

t.test('the dirty bit is set while clusters are allocated, and cleared by a clean end', { skip }, async (t) => {
  const image = create(t, '8M');
  const disk = await openImageDisk('qcow2', image);
  t.equal((await incompatibleBits(image)) & 1, 0);
  await disk.write(Buffer.alloc(512, 1), 0);
  t.equal((await incompatibleBits(image)) & 1, 1);
  await disk.close();
  t.equal((await incompatibleBits(image)) & 1, 0);
});

t.test('writes and discards in turns do not make the image larger', { skip }, async (t) => {
  const image = create(t, '8M');
  await written(image, async (disk) => {
    await disk.write(Buffer.alloc(4 * MIB, 1), 0);
    const { size } = await stat(image);
    for (let i = 0; i < 20; i++) {
      await disk.zero(0, 4 * MIB, { punch: true });
      await disk.write(Buffer.alloc(4 * MIB, i), 0);
    }
    t.ok((await stat(image)).size <= size + 64 * KIB);
  });
});

t.test('a discard frees the space of the file', { skip }, async (t) => {
  const image = create(t, '8M');
  const disk = await openImageDisk('qcow2', image);
  await disk.write(Buffer.alloc(4 * MIB, 1), 0);
  await disk.flush();
  const { blocks } = await stat(image);
  await disk.zero(0, 4 * MIB, { punch: true });
  t.ok((await stat(image)).blocks <= blocks - (3 * MIB) / 512);
  await disk.close();
});

for (const [name, zeroes] of [
  ['a discard', { punch: true }],
  ['zeros', { punch: false }],
] as const) {
  t.test(`${name} over a backing file hides it`, { skip }, async (t) => {
    const directory = t.testdir();
    await makeFile(join(directory, 'base.img'), 2 * MIB, [0, Buffer.alloc(2 * MIB, 0x41)]);
    const image = join(directory, 'a.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', 'base.img', image);
    await written(image, async (disk) => {
      await disk.zero(64 * KIB - 700, 128 * KIB + 1000, zeroes);
      t.ok((await bytesAt(disk, 64 * KIB - 700, 128 * KIB + 1000)).every((byte) => byte === 0));
      t.equal((await bytesAt(disk, 0, 1))[0], 0x41);
    });
  });
}

t.test('a backing file that is shorter than the disk reads as zeros behind its end', { skip }, async (t) => {
  const directory = t.testdir();
  await makeFile(join(directory, 'base.img'), MIB + 512, [0, Buffer.alloc(MIB + 512, 0x41)]);
  const image = join(directory, 'a.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', 'base.img', image, '2M');
  await written(image, async (disk) => {
    await disk.write(Buffer.alloc(100, 0x42), MIB + 1000);
    const bytes = await bytesAt(disk, MIB, 2 * KIB);
    t.equal(bytes[511], 0x41);
    t.equal(bytes[512], 0);
    t.equal(bytes[1000], 0x42);
  });
});

t.test('internal snapshots keep their bytes', { skip }, async (t) => {
  for (const options of ['compat=1.1', 'extended_l2=on', 'cluster_size=512']) {
    await t.test(options, async (t) => {
      const image = create(t, '4M', options);
      qemuIo('qcow2', image, 'write -P 0x41 0 3M');
      qemuImg('snapshot', '-c', 'one', image);
      await written(image, async (disk) => {
        await disk.write(Buffer.alloc(5000, 0x42), 64 * KIB - 2500);
        await disk.zero(MIB, 200 * KIB + 100, { punch: true });
        await disk.write(Buffer.alloc(70 * KIB, 0x43), 2 * MIB + 100);
      });
      qemuImg('snapshot', '-a', 'one', image);
      qemuIo('qcow2', image, 'read -P 0x41 0 3M');
      t.match(qemuImg('check', image), /No errors/);
    });
  }
});

t.test('the refcount table moves when it is full', { skip }, async (t) => {
  // a block counts 64 clusters of 512 bytes, and the table has 64 blocks: 2 MiB
  const image = create(t, '32M', 'cluster_size=512,refcount_bits=64');
  const before = (await readFile(image)).readUInt32BE(56);
  await written(image, async (disk) => {
    for (let at = 0; at < 32 * MIB; at += MIB) await disk.write(patternBytes(at, MIB - 300, 3), at + 150);
  });
  t.ok((await readFile(image)).readUInt32BE(56) > before);
});

t.test(
  'bits that are not known are cleared before the first write, and bitmaps are marked as lost',
  { skip },
  async (t) => {
    const image = create(t, '8M');
    qemuImg('bitmap', '--add', image, 'backup');
    await patch(image, 88, 1n | (1n << 40n));
    const disk = await openImageDisk('qcow2', image);
    await bytesAt(disk, 0, 4096);
    t.equal((await readFile(image)).readBigUInt64BE(88), 1n | (1n << 40n), 'reads change nothing');
    await disk.write(Buffer.alloc(512, 1), 0);
    t.equal((await readFile(image)).readBigUInt64BE(88), 0n);
    await disk.close();
  },
);

t.test('a cluster that is used but counted as free is never given to another', { skip }, async (t) => {
  const image = create(t, '8M');
  qemuIo('qcow2', image, 'write -P 0x41 0 1M');
  const l2 = await firstL2(image);
  const bytes = await readFile(image);
  const data = Number(bytes.readBigUInt64BE(l2) & 0x00ff_ffff_ffff_fe00n);
  const table = Number(bytes.readBigUInt64BE(48));
  const block = Number(bytes.readBigUInt64BE(table));
  bytes.writeUInt16BE(0, block + (data / (64 * KIB)) * 2);
  await writeFile(image, bytes);
  await t.rejects(openImageDisk('qcow2', image), { code: 'DENIED', message: /refcount of cluster/ });
  const disk = await openUnchecked(image);
  await t.rejects(
    disk.write(Buffer.alloc(64 * KIB, 2), 4 * MIB).then(() => disk.write(Buffer.alloc(512, 2), 0)),
    {
      code: 'FAILED',
      message: /counted|refcount/,
    },
  );
  t.equal((await bytesAt(disk, 0, 1))[0], 0x41, 'reads go on');
  await disk.close();
  t.equal((await incompatibleBits(image)) & 2, 2, 'it is marked as corrupt');
  const again = await openImageDisk('qcow2', image, true);
  t.ok((await bytesAt(again, 0, MIB)).every((byte) => byte === 0x41));
  await again.close();
});

t.test('an L2 table behind the end of the image is an error, never zeros', { skip }, async (t) => {
  const image = create(t, '8M');
  const l1 = Number((await readFile(image)).readBigUInt64BE(40));
  await patch(image, l1, 0x8000_0000_1000_0000n);
  const disk = await openImageDisk('qcow2', image, true);
  await t.rejects(bytesAt(disk, 0, 512), { code: 'FAILED', message: /L2 table is not inside/ });
  await disk.close();
  await t.rejects(openImageDisk('qcow2', image), { code: 'DENIED', message: /behind the end of the image/ });
  const writable = await openUnchecked(image);
  await t.rejects(writable.write(Buffer.alloc(512), 0), { code: 'FAILED' });
  await writable.close();
  t.ok((await stat(image)).size < MIB);
});

t.test('an entry that names a table is never written in place', { skip }, async (t) => {
  const image = create(t, '8M');
  qemuIo('qcow2', image, 'write -P 0x41 0 128k');
  const l2 = await firstL2(image);
  const l1 = Number((await readFile(image)).readBigUInt64BE(40));
  for (const [what, place] of [
    ['the header', 0],
    ['the L1 table', l1],
    ['itself', l2],
  ] as const) {
    await t.test(what, async (t) => {
      const copy = join(t.testdir(), 'b.qcow2');
      await writeFile(copy, await readFile(image));
      await patch(copy, l2, 0x8000_0000_0000_0000n | BigInt(place));
      const before = await readFile(copy);
      if (place !== 0) await t.rejects(openImageDisk('qcow2', copy), { code: 'DENIED' });
      const disk = await openUnchecked(copy);
      if (place !== 0) await t.rejects(disk.write(Buffer.alloc(512, 7), 0), { code: 'FAILED' });
      await disk.close();
      const after = await readFile(copy);
      t.ok(after.subarray(128).equals(before.subarray(128)));
    });
  }
});

t.test('data behind the end of the image reads as zeros', { skip }, async (t) => {
  const image = create(t, '8M');
  qemuIo('qcow2', image, 'write -P 0x41 0 128k');
  const l2 = await firstL2(image);
  const place = Number((await readFile(image)).readBigUInt64BE(l2 + 8) & 0x00ff_ffff_ffff_fe00n);
  await truncate(image, place + 100);
  const disk = await openImageDisk('qcow2', image, true);
  const bytes = await bytesAt(disk, 64 * KIB, 200);
  t.equal(bytes[99], 0x41);
  t.equal(bytes[100], 0);
  await disk.close();
});

t.test('version 2 is read, and not written', { skip }, async (t) => {
  const image = create(t, '8M', 'compat=0.10');
  qemuIo('qcow2', image, 'write -P 0x41 0 128k');
  const disk = await openImageDisk('qcow2', image, true);
  t.equal((await bytesAt(disk, 1000, 1))[0], 0x41);
  await disk.close();
  await t.rejects(openImageDisk('qcow2', image), { code: 'UNSUPPORTED', hint: /qemu-img amend/ });
});

t.test('an image of 3 TiB', { skip }, async (t) => {
  const image = create(t, '3T');
  const at = 2.5 * 2 ** 40 + 12_345;
  const disk = await openImageDisk('qcow2', image);
  t.equal(disk.size, 3 * 2 ** 40);
  await disk.write(Buffer.alloc(5000, 0x42), at);
  await disk.zero(0, 2 ** 41, { punch: true });
  await disk.close();
  t.match(qemuImg('check', image), /No errors/);
  qemuIo('qcow2', image, `read -P 0x42 ${at} 5000`);
});

t.test('data in another file', { skip }, async (t) => {
  for (const raw of ['on', 'off']) {
    await t.test(`data_file_raw=${raw}`, async (t) => {
      const directory = t.testdir();
      const image = join(directory, 'a.qcow2');
      const data = join(directory, 'data.img');
      qemuImg('create', '-q', '-f', 'qcow2', '-o', `data_file=${data},data_file_raw=${raw}`, image, '8M');
      await written(image, async (disk) => {
        await disk.write(patternBytes(0, 200 * KIB, 5), 70_000);
        await disk.zero(100_000, 90_000, { punch: true });
        await disk.write(Buffer.alloc(700, 3), 5 * MIB);
      });
    });
  }
});

t.test('a place in a data file that no file can have is a damage', { skip }, async (t) => {
  const directory = t.testdir();
  const image = join(directory, 'a.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', '-o', `data_file=${join(directory, 'data.img')}`, image, '8M');
  qemuIo('qcow2', image, 'write 0 64k');
  await patch(image, await firstL2(image), (1n << 63n) | 0x00ff_ffff_ffff_0000n);
  const disk = await openImageDisk('qcow2', image);
  await t.rejects(disk.write(Buffer.alloc(512), 0), { code: 'FAILED', message: /a place that is too large/ });
  await t.rejects(disk.read(Buffer.alloc(512), 0), { code: 'FAILED', message: /a place that is too large/ });
  await disk.close();
});

t.test('many writes at the same time to new tables', { skip }, async (t) => {
  const image = create(t, '1G', 'cluster_size=4k');
  await written(image, async (disk) => {
    const writes = Array.from({ length: 400 }, (_, i) => {
      const at = ((i * 7919) % 1000) * MIB + (i % 5) * 1500;
      return disk.write(Buffer.alloc(6000, i), at);
    });
    await Promise.all(writes);
  });
});
