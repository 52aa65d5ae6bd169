import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { frontDisk } from '../../drivers/disk.js';
import { byMap, type Served } from '../conformance/by-map.js';
import { patternBytes, pieceBytes } from '../conformance/pattern.js';
import { type DiskFactory, diskSuite } from '../conformance/suite.js';
import { bySyncCalls } from '../conformance/sync-calls.js';
import { type Builder, graphFactory, makeFile, openImageDisk, openTreeDisk } from './graph-factory.js';
import { vdiHead } from './images/vdi.js';
import { compareWithQemu, qemuImg, qemuIo, qemuSize, whyNoQemu } from './qemu.js';

const MIB = 1 << 20;
const abilities = { maxSizeBytes: 2 ** 42, holes: true, shrink: true };
t.setTimeout(600_000);

const builder: Builder = async (size, directory) => {
  const path = join(directory, 'disk.vdi');
  // large disks have large blocks, so that their maps stay small
  const { head, dataStart } = vdiHead({ size, blockBytes: size > 2 ** 34 ? 1 << 28 : MIB });
  await makeFile(path, dataStart + size, [0, head]);
  return {
    graph: { driver: 'vdi', options: {}, on: { file: { file: path } } },
    runs: [{ path, offset: 0, start: dataStart, size }],
  };
};

diskSuite({ name: 'vdi', test: t, factory: graphFactory(builder), abilities });
diskSuite({ name: 'vdi in a thread', test: t, factory: graphFactory(builder, { wrap: bySyncCalls }), abilities });

t.test('nothing is written over the header and what follows the disk', async (t) => {
  const size = 2 * MIB + 500;
  const { head, dataStart } = vdiHead({ size });
  const path = await makeFile(join(t.testdir(), 'a.vdi'), dataStart + 3 * MIB, [0, head]);
  const disk = await openImageDisk('vdi', path);
  t.equal(await disk.write(Buffer.alloc(size + 1000, 1), 0), size);
  await disk.close();
  const file = await readFile(path);
  t.ok(file.subarray(0, dataStart).equals(head));
  t.ok(file.subarray(dataStart + size).every((byte) => byte === 0));
});

t.test('images of QEMU', { skip: whyNoQemu() }, async (t) => {
  const path = join(t.testdir(), 'disk.vdi');
  await t.test('that are static have the same size and bytes here', async (t) => {
    qemuImg('create', '-q', '-f', 'vdi', '-o', 'static=on', path, '5M');
    qemuIo('vdi', path, 'write -P 0x41 4096 1M');
    const disk = await openImageDisk('vdi', path);
    t.equal(disk.size, qemuSize('vdi', path));
    await compareWithQemu('vdi', path, disk);
    await disk.close();
  });
  await t.test('are written here and read there', async (t) => {
    const disk = await openImageDisk('vdi', path);
    await disk.write(Buffer.alloc(8192, 0x42), 5 * MIB - 8192);
    await disk.write(patternBytes(0, 3000, 1), 0);
    await disk.flush();
    qemuIo('vdi', path, `read -P 0x42 ${5 * MIB - 8192} 8192`);
    await compareWithQemu('vdi', path, disk);
    await disk.close();
    t.match(qemuImg('check', '-f', 'vdi', path), /No errors/);
  });
  await t.test('that are dynamic have the same bytes here, and are written as QEMU writes them', async (t) => {
    const dynamic = join(t.testdir(), 'dynamic.vdi');
    qemuImg('create', '-q', '-f', 'vdi', dynamic, '9M');
    qemuIo('vdi', dynamic, 'write -P 0x41 5M 1M');
    qemuIo('vdi', dynamic, 'write -P 0x42 1000k 100k');
    const disk = await openImageDisk('vdi', dynamic);
    t.equal(disk.size, qemuSize('vdi', dynamic));
    await compareWithQemu('vdi', dynamic, disk);
    await disk.write(patternBytes(0, 3000, 1), 5 * MIB - 1000);
    await disk.write(patternBytes(0, MIB + 5, 2), 7 * MIB - 5);
    await disk.zero(5 * MIB + 1000, MIB, { punch: true });
    await disk.zero(2 * MIB, MIB, { punch: true });
    await disk.close();
    const again = await openImageDisk('vdi', dynamic, true);
    await compareWithQemu('vdi', dynamic, again);
    t.match(qemuImg('check', '-f', 'vdi', dynamic), /No errors/);
    const { start, end, blocks } = await blocksOf(dynamic);
    t.same(blocks, 6, 'zeros of a block without a place need none');
    t.ok(end > start);
    await again.close();
  });
});

/** What the header of a VDI says of its blocks. */
async function blocksOf(path: string): Promise<{ start: number; end: number; blocks: number }> {
  const bytes = await readFile(path);
  return { start: bytes.readUInt32LE(344), end: bytes.length, blocks: bytes.readUInt32LE(388) };
}

const dynamic =
  (blockBytes: number, counts?: Served): DiskFactory =>
  async ({ size, pieces, readOnly }) => {
    const directory = await mkdtemp(join(tmpdir(), 'vdi-'));
    const path = join(directory, 'disk.vdi');
    // every other block is there, in the reverse order
    const blocks = Math.ceil(size / blockBytes);
    const placed = Math.ceil(blocks / 2);
    const map = Array.from({ length: blocks }, (_, i) =>
      i % 2 === 0 ? placed - 1 - i / 2 : 0xffffffff - ((i >> 1) % 2),
    );
    const { head, dataStart } = vdiHead({ size, blockBytes, type: 1, map });
    head.writeUInt32LE(placed, 388);
    await makeFile(path, dataStart + placed * blockBytes, [0, head]);
    const open = () => openTreeDisk({ driver: 'vdi', options: {}, on: { file: { file: path } } }, false);
    const first = frontDisk(await open(), { readOnly: false });
    for (const piece of pieces) await first.write(pieceBytes(piece), piece.offset);
    await first.close();
    const reopen = async () => {
      const disk = await openTreeDisk({ driver: 'vdi', options: {}, on: { file: { file: path } } }, readOnly);
      return counts === undefined ? disk : byMap(disk, counts);
    };
    return { raw: await reopen(), reopen, dispose: () => rm(directory, { recursive: true }) };
  };

const growing = { ...abilities, maxSizeBytes: 2 ** 32, holes: true, shrink: false };
for (const blockBytes of [4096, 3 * 4096, MIB]) {
  const name = `dynamic vdi, blocks of ${blockBytes}`;
  const able = { ...growing, maxSizeBytes: blockBytes * 4096 };
  diskSuite({ name, test: t, factory: dynamic(blockBytes), abilities: able, runs: 3 });
  const counts: Served = { byMap: 0, byDriver: 0 };
  diskSuite({ name: `${name}, by its map`, test: t, factory: dynamic(blockBytes, counts), abilities: able, runs: 3 });
  t.test(`the map of ${name} served some of it`, async (t) => {
    t.ok(counts.byMap > 50, `${counts.byMap} requests by the map, ${counts.byDriver} by the driver`);
  });
}
