import { deflateRawSync, constants as zlib } from 'node:zlib';
import fc from 'fast-check';
import t from 'tap';
import { decodeCluster } from '../../../drivers/qcow2/reading/compressed.js';
import { seed } from '../formats/image-bytes.js';
import { whyNoQemu } from '../qemu.js';
import { compressedImage, compressibleBytes } from './compressed-image.js';

const CLUSTER = 4096;
const TAIL = Buffer.alloc(700, 0xee);
const cluster = compressibleBytes(CLUSTER);

const deflate = (stream: Buffer, clusterBytes = CLUSTER): Promise<Buffer> =>
  decodeCluster(stream, { compression: 'deflate', clusterBytes }, 99);
const zstd = (stream: Buffer, clusterBytes = CLUSTER): Promise<Buffer> =>
  decodeCluster(stream, { compression: 'zstd', clusterBytes }, 99);
const damaged = {
  code: 'FAILED',
  errno: 5,
  message: 'the qcow2 image is damaged: the compressed cluster at byte 99 cannot be decoded',
};

t.test('deflate', async (t) => {
  const stream = deflateRawSync(cluster, { windowBits: 12 });
  t.same(await deflate(stream), cluster);
  t.same(await deflate(Buffer.concat([stream, TAIL])), cluster, 'bytes of others follow');
  t.same(await deflate(deflateRawSync(cluster, { windowBits: 15 })), cluster, 'a larger window');
  t.same(await deflate(deflateRawSync(Buffer.concat([cluster, cluster]))), cluster, 'more than a cluster');
  const open = deflateRawSync(cluster, { finishFlush: zlib.Z_SYNC_FLUSH });
  t.same(await deflate(open), cluster, 'a stream without its end');
  await t.rejects(deflate(deflateRawSync(cluster.subarray(1))), damaged, 'less than a cluster');
  await t.rejects(deflate(stream.subarray(0, stream.length / 2)), damaged, 'cut off');
  await t.rejects(deflate(Buffer.alloc(0)), damaged, 'nothing');
  await t.rejects(deflate(TAIL), damaged, 'no stream');
  const bomb = deflateRawSync(Buffer.alloc(1 << 24));
  t.same(await deflate(bomb), Buffer.alloc(CLUSTER), 'a bomb');
});

/** A frame of blocks that are not compressed. @param blocks their bytes, or a byte and how often it is repeated */
function frame(blocks: readonly (Buffer | [byte: number, count: number])[], header = '28b52ffd 00 70'): Buffer {
  const parts = blocks.map((block, i) => {
    const isLast = i === blocks.length - 1 ? 1 : 0;
    const [bytes, type, size] = Buffer.isBuffer(block) ? [block, 0, block.length] : [Buffer.of(block[0]), 1, block[1]];
    const head = Buffer.alloc(3);
    head.writeUIntLE((size << 3) | (type << 1) | isLast, 0, 3);
    return Buffer.concat([head, bytes]);
  });
  return Buffer.concat([Buffer.from(header.replaceAll(' ', ''), 'hex'), ...parts]);
}

const half = CLUSTER / 2;
const skippable = Buffer.from('5a2a4d1803000000aabbcc', 'hex');
const checkedBytes = Buffer.from(Array.from({ length: CLUSTER }, (_, i) => 97 + ((i * i + (i >> 5)) % 23)));
/** checkedBytes, by zstd -19 --check: the checksum is the last 4 bytes, and bit 2 of byte 4 says that it is there */
const CHECKED = Buffer.from(
  [
    'KLUv/QRoNQsAFqFSEMA7ZLtLtrskKSkpXFVV8wVMAE8ATgB/iAhB0H1yVkBzhzBOc9SLPC8/WY28nTF8dX0oPs2MAEAY1oeV4VXC',
    'fyiLzSbRmtoirdqiKHBickBaVhHgDgguOEk0je/+kZTkAYsXS7D0KYTUdVE6jnBL56TG5IaqIoIoBrEdTWQiAQSSUrSxDJkBHgyE',
    'gQldp5SzVLCAKKQyhBiVYYE74v3FObCA+maCtwfTXgFMZYySEBTmKYlpUL5GArnQQStBaiUYW0MWqh9xCnuM3YbE6FEdcxQ2BWiP',
    'XzLFpPOzCGhbq5CCWhs9n0wpln/UdEOOK6WFbrIwO2SQw7ikQbLLDDHMCs7sAuVA83rt9A2ORKJ4NtbSywk8oXc7HBTXwhnAqgzM',
    'hUYa2WLY5EsDbPAttY4HA638Zm5SbcV6RlwR1Qn7JbapzrvssVwFZQkFGKggwv/+8KXNENbv//9/Bh0d9/9f/6pOvt3aQ2o=',
  ].join(''),
  'base64',
);

t.test('zstd', async (t) => {
  t.same(await zstd(frame([cluster])), cluster);
  t.same(await zstd(Buffer.concat([frame([cluster]), TAIL])), cluster, 'bytes of others follow');
  t.same(await zstd(frame([cluster.subarray(0, 7), cluster.subarray(7)])), cluster, 'two blocks');
  const zeros = frame([[0, half]]);
  const twice = Buffer.concat([frame([cluster.subarray(0, half)]), zeros, TAIL]);
  t.same(await zstd(twice), Buffer.concat([cluster.subarray(0, half), Buffer.alloc(half)]), 'two frames');
  t.same(
    await zstd(Buffer.concat([skippable, zeros, skippable, zeros])),
    Buffer.alloc(CLUSTER),
    'other frames between',
  );
  t.same(await zstd(Buffer.concat([frame([Buffer.alloc(0)]), zeros, zeros])), Buffer.alloc(CLUSTER), 'an empty frame');
});

t.test('checksums of zstd', async (t) => {
  t.same(await zstd(CHECKED), checkedBytes);
  const wrong = Buffer.from(CHECKED);
  wrong.writeUInt32LE(1, wrong.length - 4);
  await t.rejects(zstd(wrong), damaged, 'a wrong one');
  await t.rejects(zstd(CHECKED.subarray(0, -1)), damaged, 'one that is cut off');
  const without = Buffer.from(CHECKED.subarray(0, -4));
  without[4] = 0;
  t.same(await zstd(without), checkedBytes, 'none');
});

t.test('zstd streams that are damaged', async (t) => {
  const refuse = (stream: Buffer, what: string) => t.rejects(zstd(stream), damaged, what);
  await refuse(Buffer.alloc(0), 'nothing');
  await refuse(TAIL, 'no frame');
  await refuse(frame([cluster.subarray(1)]), 'less than a cluster');
  await refuse(frame([cluster, [0, 1]]), 'one byte more than a cluster');
  await refuse(frame([[0, 131_072]]), 'more than a cluster');
  await refuse(Buffer.concat([frame([[1, half]]), frame([[2, half + 1]])]), 'more than a cluster in two frames');
  await refuse(Buffer.from('5a2a4d18ffffffff', 'hex'), 'a frame of other data that does not end');
  for (const length of [1, 4, 5, 6, 8, 9, 20, CHECKED.length - 5]) {
    await refuse(CHECKED.subarray(0, length), `cut off after ${length} bytes`);
  }
});

t.test('zstd streams that claim much', async (t) => {
  const refuse = (stream: Buffer, what: string) => t.rejects(zstd(stream), damaged, what);
  // the window descriptors of 128 MiB, as much as QEMU reads, of 144 MiB and of the largest window
  t.same(await zstd(frame([cluster], '28b52ffd 00 88')), cluster);
  await refuse(frame([cluster], '28b52ffd 00 89'), 'a window of 144 MiB');
  await refuse(frame([cluster], '28b52ffd 00 ff'), 'a window of 3.75 TiB');
  await refuse(frame([cluster], '28b52ffd e0 ffffffffffffff7f'), 'a size of 2^63 bytes');
  await refuse(frame([cluster], '28b52ffd a0 ffffffff'), 'a size of 4 GiB');
  await refuse(frame([cluster], '28b52ffd 03 70 01020304'), 'a dictionary');
  const empty = Buffer.alloc(0);
  await refuse(frame([...Array<Buffer>(1e5).fill(empty), cluster]), 'many empty blocks');
  await refuse(Buffer.concat(Array<Buffer>(1e5).fill(frame([empty]))), 'many empty frames');
  await refuse(Buffer.concat(Array<Buffer>(1e5).fill(skippable)), 'many frames of other data');
});

t.test('streams with changed bytes have a cluster, or are damaged', async (t) => {
  t.comment(`seed ${seed}`);
  const edit = fc.record({ at: fc.nat(), byte: fc.nat(255) });
  const edits = fc.array(edit, { minLength: 1, maxLength: 6 });
  const valid = [
    { decode: deflate, stream: deflateRawSync(cluster) },
    { decode: zstd, stream: CHECKED.subarray(0, -4) },
    { decode: zstd, stream: CHECKED },
  ];
  for (const { decode, stream } of valid) {
    const property = fc.asyncProperty(edits, fc.boolean(), async (all, isUnchecked) => {
      const bytes = Buffer.from(stream);
      for (const { at, byte } of all) bytes[at % bytes.length] = byte;
      if (isUnchecked) bytes[4] = (bytes[4] ?? 0) & 0xfb;
      const outcome = await decode(bytes).catch((error: unknown) => error);
      if (!Buffer.isBuffer(outcome)) t.match(outcome, damaged);
      else if (outcome.length !== CLUSTER) t.fail(`${outcome.length} bytes`);
    });
    await fc.assert(property, { seed, numRuns: 500 });
  }
});

t.test('images of QEMU', { skip: whyNoQemu() }, async (t) => {
  for (const type of ['zlib', 'zstd'] as const) {
    for (let bits = 9; bits <= 21; bits += 1) {
      const clusterBytes = 2 ** bits;
      const size = Math.max(16 * clusterBytes, 1 << 18);
      const options = `compression_type=${type},cluster_size=${clusterBytes}`;
      const image = await compressedImage(t.testdir(), compressibleBytes(size), options);
      t.equal(image.streams.length, size / clusterBytes, `${type}, clusters of ${clusterBytes} bytes`);
      let different = 0;
      for (const { place, streamBytes, cluster: number } of image.streams) {
        const stream = image.bytes.subarray(place, place + streamBytes);
        const decoded = await decodeCluster(stream, image.header, place);
        const at = number * clusterBytes;
        if (!decoded.equals(image.disk.subarray(at, at + clusterBytes))) different += 1;
      }
      t.equal(different, 0, 'the same bytes');
    }
  }
});
