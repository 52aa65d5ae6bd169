/**
 * Writes in sequence to a new image: most of them find a place that was allocated ahead, so that threads write them. This
 * test is the threads: it writes to the file what the map says that threads may write.
 */
import { writeSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { frontDisk } from '../../../drivers/disk.js';
import { openGraph } from '../../../drivers/graph/open-graph.js';
import { WRITABLE } from '../../../drivers/map/table.js';
import { byMap } from '../../conformance/by-map.js';
import { openImageDisk, openTree } from '../graph-factory.js';
import { compareWithQemu, qemuImg, whyNoQemu } from '../qemu.js';

const skip = whyNoQemu();
const MIB = 1 << 20;
const DEPTH = 4;

const BLOCK = 65_536;

/** Writes blocks in an order, several at a time. @returns how many of them threads did not serve */
async function writeAll(image: string, order: readonly number[]): Promise<number> {
  const tree = await openTree({ driver: 'qcow2', options: {}, on: { file: { file: image } } }, false);
  const raw = await openGraph(tree);
  const disk = frontDisk(raw, { readOnly: false });
  if (raw.map === undefined) throw new Error('it has no map');
  const { map } = raw.map;
  const { granuleBytes } = map.table.shape;
  let left = 0;
  const pending = [...order];
  const client = async (): Promise<void> => {
    for (let block = pending.shift(); block !== undefined; block = pending.shift()) {
      const [at, bytes] = [block * BLOCK, Buffer.alloc(BLOCK, 1 + (block % 250))];
      const first = at / granuleBytes;
      const entries = Array.from({ length: BLOCK / granuleBytes }, (_, i) => map.entry(first + i));
      if (entries.every(({ state }) => state === WRITABLE)) {
        for (const [i, { file, place }] of entries.entries()) {
          writeSync(map.files[file]?.fd ?? -1, bytes, i * granuleBytes, granuleBytes, place);
        }
        // the thread of a client would be elsewhere meanwhile
        await new Promise(setImmediate);
      } else {
        left += 1;
        await disk.write(bytes, at);
      }
    }
  };
  await Promise.all(Array.from({ length: DEPTH }, client));
  await disk.close();
  await tree.close();
  return left;
}

for (const options of ['compat=1.1', 'cluster_size=4k', 'extended_l2=on']) {
  t.test(`writes in sequence: ${options}`, { skip }, async (t) => {
    const image = join(t.testdir(), 'a.qcow2');
    const size = 96 * MIB;
    qemuImg('create', '-q', '-f', 'qcow2', '-o', options, image, String(size));
    const count = size / BLOCK;
    const left = await writeAll(
      image,
      Array.from({ length: count }, (_, i) => i),
    );
    t.ok(left < count / 5, `${left} of ${count} were left to the event loop`);
    t.match(qemuImg('check', '-f', 'qcow2', image), /No errors/);
    const disk = await openImageDisk('qcow2', image, true);
    await compareWithQemu('qcow2', image, disk);
    const block = Buffer.alloc(BLOCK);
    for (let i = 0; i < count; i++) {
      await disk.read(block, i * block.length);
      if (!block.equals(Buffer.alloc(block.length, 1 + (i % 250)))) throw new Error(`wrong bytes in block ${i}`);
    }
    await disk.close();
  });
}

t.test('requests that overtake each other are a sequence, too', { skip }, async (t) => {
  const image = join(t.testdir(), 'a.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', image, '64M');
  const order = Array.from({ length: 1024 }, (_, i) => i ^ 3);
  const left = await writeAll(image, order);
  t.ok(left < 200, `${left} were left to the event loop`);
  t.match(qemuImg('check', '-f', 'qcow2', image), /No errors/);
});

t.test('writes far from each other allocate nothing ahead', { skip }, async (t) => {
  const image = join(t.testdir(), 'a.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', image, '1G');
  const order = Array.from({ length: 64 }, (_, i) => ((i * 37) % 64) * 200);
  t.equal(await writeAll(image, order), 64);
  const { 'allocated-clusters': clusters } = JSON.parse(qemuImg('check', '-f', 'qcow2', '--output', 'json', image));
  t.equal(clusters, 64);
});

t.test('what was written is read at once, by threads and by the driver, also in small blocks', { skip }, async (t) => {
  const image = join(t.testdir(), 'a.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', image, '64M');
  const tree = await openTree({ driver: 'qcow2', options: {}, on: { file: { file: image } } }, false);
  const raw = byMap(await openGraph(tree));
  const disk = frontDisk(raw, { readOnly: false });
  const block = Buffer.alloc(4096);
  for (let at = 0; at < 32 * MIB; at += block.length) {
    const bytes = Buffer.alloc(block.length, 1 + ((at / block.length) % 250));
    await disk.write(bytes, at);
    await disk.read(block, at);
    if (!block.equals(bytes)) throw new Error(`byte ${at} reads as ${block[0]}`);
  }
  await disk.close();
  await tree.close();
});

t.test('a sequence that goes on elsewhere while a table is made spoils nothing', { skip }, async (t) => {
  const cluster = 4096;
  const perTable = cluster / 8;
  for (const turns of [0, 1, 2, 3, 5]) {
    const image = join(t.testdir(), 'a.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', image, '512M');
    const tree = await openTree({ driver: 'qcow2', options: {}, on: { file: { file: image } } }, false);
    const disk = frontDisk(await openGraph(tree), { readOnly: false });
    const write = (number: number, value: number) => disk.write(Buffer.alloc(cluster, value), number * cluster);
    for (let i = 0; i < 100; i++) await write(3 * i + 2, 7);
    for (let round = 0; round < 20; round++) {
      const end = (11 + 2 * round) * perTable;
      await write(end - 2, 1);
      const last = write(end - 1, 2);
      for (let turn = 0; turn < turns; turn++) await new Promise(setImmediate);
      await Promise.all([last, write(6 * round, 3), write(6 * round + 1, 4)]);
    }
    const seen = Buffer.alloc(cluster);
    for (let i = 0; i < 100; i++) {
      await disk.read(seen, (3 * i + 2) * cluster);
      if (seen[0] !== 7) throw new Error(`cluster ${3 * i + 2} reads as ${seen[0]}`);
    }
    await disk.close();
    await tree.close();
    t.match(qemuImg('check', '-f', 'qcow2', image), /No errors/);
  }
});
