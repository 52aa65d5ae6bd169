import { deflateRawSync } from 'node:zlib';
import t from 'tap';
import { frontDisk } from '../../../drivers/disk.js';
import { DecodedCache } from '../../../drivers/lookup/decoded-cache.js';
import { readCluster, type Stream } from '../../../drivers/qcow2/reading/compressed.js';
import { bufferDisk } from '../../conformance/buffer-disk.js';

const STREAM_BYTES = 512;

/** An image of streams, 512 bytes each: stream n has a cluster full of the byte n. Reads are counted and can be paused. */
function imageOf(clusterBytes: number, count: number) {
  const bytes = Buffer.alloc(count * STREAM_BYTES);
  const put = (number: number, byte: number): void => {
    const stream = deflateRawSync(Buffer.alloc(clusterBytes, byte), { level: 9 });
    if (stream.length > STREAM_BYTES) throw new RangeError(`a stream of ${stream.length} bytes`);
    bytes.fill(0, number * STREAM_BYTES, (number + 1) * STREAM_BYTES);
    stream.copy(bytes, number * STREAM_BYTES);
  };
  for (let number = 0; number < count; number += 1) put(number, number % 251);
  const state = { reads: 0, running: 0, most: 0, gate: Promise.resolve() };
  const image = frontDisk(
    {
      ...bufferDisk(bytes),
      async read(buffer, offset) {
        state.reads += 1;
        state.running += 1;
        state.most = Math.max(state.most, state.running);
        buffer.set(bytes.subarray(offset, offset + buffer.length));
        await state.gate;
        state.running -= 1;
      },
    },
    { readOnly: true },
  );
  const codec = { compression: 'deflate', clusterBytes } as const;
  const cache = new DecodedCache<Stream>({
    unitBytes: clusterBytes,
    decode: (stream) => readCluster(image, stream, codec),
  });
  const place = (number: number): number => number * STREAM_BYTES;
  const read = async (number: number): Promise<number> => {
    const cluster = await cache.read(place(number), { place: place(number), streamBytes: STREAM_BYTES });
    if (cluster.length !== clusterBytes) throw new RangeError(`a cluster of ${cluster.length} bytes`);
    if (!cluster.equals(Buffer.alloc(clusterBytes, cluster[0]))) throw new RangeError('other bytes');
    return cluster[0] ?? -1;
  };
  return { state, put, bytes, read, forget: (number: number) => cache.forget(place(number)) };
}

t.test('a cluster is decoded once', async (t) => {
  const { state, read } = imageOf(4096, 3);
  t.same(await Promise.all([read(1), read(1), read(2), read(1)]), [1, 1, 2, 1]);
  t.equal(state.reads, 2, 'calls at the same time share');
  t.equal(await read(1), 1);
  t.equal(state.reads, 2, 'and later ones find it');
});

t.test('the clusters that were used last stay', async (t) => {
  for (const [clusterBytes, most] of [
    [512, 1024],
    [65_536, 128],
    [1 << 18, 32],
  ] as const) {
    const { state, read } = imageOf(clusterBytes, most + 2);
    for (let number = 0; number < most; number += 1) await read(number);
    await read(0);
    t.equal(state.reads, most, `${most} clusters of ${clusterBytes} bytes`);
    await read(most);
    await read(0);
    await read(most - 1);
    t.equal(state.reads, most + 1, 'the first was used again, and stays');
    await read(1);
    t.equal(state.reads, most + 2, 'the second is gone');
  }
});

t.test('caches that share the memory keep less each, but one at least', async (t) => {
  for (const [shares, most] of [
    [4, 32],
    [1000, 1],
  ] as const) {
    const decoded: number[] = [];
    const decode = async (number: number): Promise<Buffer> => Buffer.alloc(1, decoded.push(number));
    const cache = new DecodedCache<number>({ unitBytes: 65_536, shares, decode });
    for (let number = 0; number <= most; number += 1) await cache.read(number, number);
    await cache.read(most, most);
    t.equal(decoded.length, most + 1, 'the last one is kept');
    if (most > 1) await cache.read(1, 1);
    t.equal(decoded.length, most + 1, 'and as many as fit');
    await cache.read(0, 0);
    t.equal(decoded.length, most + 2, 'the first one is gone');
  }
});

t.test('a cluster that was forgotten is decoded again', async (t) => {
  const { state, put, read, forget } = imageOf(4096, 2);
  t.equal(await read(1), 1);
  forget(1);
  put(1, 7);
  t.equal(await read(1), 7);
  t.equal(state.reads, 2);
  forget(0);
  t.equal(await read(0), 0, 'also one that was not known');
});

t.test('a cluster that is forgotten while it is decoded is not kept', async (t) => {
  const { state, put, read, forget } = imageOf(4096, 2);
  let open = (): void => {};
  state.gate = new Promise((resolve) => (open = resolve));
  const before = read(1);
  await new Promise(setImmediate);
  forget(1);
  put(1, 7);
  const after = read(1);
  open();
  t.equal(await before, 1, 'its readers may see the old bytes');
  t.equal(await after, 7);
  t.equal(await read(1), 7);
  t.equal(state.reads, 2);
});

t.test('an error is not kept', async (t) => {
  const { put, bytes, read } = imageOf(4096, 2);
  bytes.fill(0xff, STREAM_BYTES);
  const damaged = { code: 'FAILED', errno: 5, message: /the compressed cluster at byte 512 cannot be decoded/ };
  await Promise.all([t.rejects(read(1), damaged), t.rejects(read(1), damaged)]);
  put(1, 3);
  t.equal(await read(1), 3);
});

t.test('few streams are in memory at the same time', async (t) => {
  const { state, bytes, read } = imageOf(4096, 100);
  bytes.fill(0xff, 50 * STREAM_BYTES, 60 * STREAM_BYTES);
  const all = await Promise.allSettled(Array.from({ length: 100 }, (_, number) => read(number)));
  t.equal(all.filter(({ status }) => status === 'fulfilled').length, 90, 'also after errors');
  t.equal(state.most, 4);
});
