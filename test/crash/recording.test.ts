/** The parts of the harness: files in memory, lives that end, power cuts, and what a disk may contain then. */
import t from 'tap';
import { Random } from '../../scripts/lib/torture/second-faults/random.js';
import { patternBytes } from '../conformance/pattern.js';
import { Expectation, type Wish } from './expectation.js';
import { type Ending, Life } from './life.js';
import { ordersOf } from './orders.js';
import { cutPower } from './power-cut.js';
import { SparseBytes } from './sparse-bytes.js';
import { type Call, replay } from './tape.js';

const SIZE = 5 * 4096 + 700;

t.test('files in memory are as a Buffer', async (t) => {
  const random = new Random(7);
  const model = Buffer.alloc(SIZE);
  const sparse = new SparseBytes(SIZE);
  const copies: [SparseBytes, Buffer][] = [];
  for (let count = 0; count < 300; count++) {
    const offset = random.below(SIZE);
    const length = random.below(Math.min(9000, SIZE - offset)) + 1;
    if (random.isOneIn(3)) {
      sparse.zero(offset, length);
      model.fill(0, offset, offset + length);
    } else {
      sparse.write(patternBytes(offset, length, count), offset);
      patternBytes(offset, length, count).copy(model, offset);
    }
    if (random.isOneIn(20)) copies.push([sparse.copy(), Buffer.from(model)]);
  }
  for (const [copy, expected] of [...copies, [sparse, model] as const]) t.ok(copy.toBuffer().equals(expected));
  t.ok(sparse.equals(SparseBytes.from(model)));
  sparse.resize(3 * SIZE);
  sparse.resize(2 * SIZE);
  t.ok(sparse.toBuffer().equals(Buffer.concat([model, Buffer.alloc(SIZE)])));
  sparse.resize(100);
  sparse.resize(SIZE);
  t.ok(sparse.toBuffer().equals(Buffer.concat([model.subarray(0, 100), Buffer.alloc(SIZE - 100)])), 'cut, and grown');
  t.throws(() => sparse.write(Buffer.alloc(1), SIZE), RangeError);
  const path = `${t.testdir()}/a.img`;
  await sparse.save(path);
  t.ok((await SparseBytes.load(path)).equals(sparse));
});

/** Writes of 3 pages and of one byte, a flush, growth, zeros; some at the same time. */
async function work(life: Life): Promise<void> {
  const disk = life.disk('file', { readOnly: false });
  await disk.write(patternBytes(0, 12_288, 1), 100);
  await disk.flush();
  await disk.growth?.grow(SIZE + 4096);
  await Promise.all([disk.write(Buffer.of(1), SIZE + 4095), disk.zero(0, 9000, { punch: true }), disk.flush()]);
}

function begin(ending?: Ending, order = 0): Life {
  return new Life({ files: { file: new SparseBytes(SIZE) }, order: ordersOf(order), ...(ending && { ending }) });
}

t.test('a life records what it did, in order', async (t) => {
  const life = begin();
  await work(life);
  const kinds = life.tape.map((call) => [call.kind, 'offset' in call ? call.offset : null]);
  t.strictSame(kinds, [
    ['write', 100],
    ['flush', null],
    ['grow', null],
    ['write', SIZE + 4095],
    ['zero', 0],
    ['flush', null],
  ]);
  t.match(life.tape[1], { covers: 1 });
  t.match(life.tape[5], { covers: 3 }, 'it covers what was done when it began');
  t.ok(replay({ file: new SparseBytes(SIZE) }, life.tape).file?.equals(life.files.file as SparseBytes));
});

t.test('other orders of calls at the same time', async (t) => {
  const seen = new Set<string>();
  for (let order = 0; order < 20; order++) {
    const life = begin(undefined, order);
    await work(life);
    seen.add(life.tape.map(({ kind }) => kind).join(' '));
  }
  t.equal(seen.size, 6, 'all that there are');
});

t.test('a life ends at a call', async (t) => {
  const done = begin();
  await work(done);
  for (const reach of ['done', 'unreported', 'torn'] as const) {
    for (let at = 1; at < done.tape.length; at++) {
      const life = begin({ at, reach });
      await Promise.race([work(life).then(() => t.fail('it did not end')), life.died]);
      t.equal(life.tape.length, at, `${reach} ${at}`);
      const expected = replay({ file: new SparseBytes(SIZE) }, [
        ...done.tape.slice(0, at - 1),
        life.tape[at - 1] as Call,
      ]);
      t.ok(life.files.file?.equals(expected.file as SparseBytes));
      if (reach !== 'torn') t.strictSame(life.tape, done.tape.slice(0, at));
    }
  }
  const torn = begin({ at: 1, reach: 'torn' });
  await Promise.race([work(torn), torn.died]);
  const [part] = torn.tape;
  t.equal(part?.kind === 'write' && part.bytes.length, 2 * 4096 - 100, 'up to a border of pages');
});

t.test('a write beyond the end is a fault', async (t) => {
  const disk = begin().disk('file', { readOnly: false });
  await t.rejects(disk.write(Buffer.alloc(2), SIZE - 1), RangeError);
});

t.test('a power cut', async (t) => {
  const write = (offset: number, length: number, byte: number, durable = false): Call => {
    return { file: 'file', kind: 'write', offset, bytes: Buffer.alloc(length, byte), durable };
  };
  const calls: Call[] = [
    write(0, 1024, 1),
    { file: 'file', kind: 'flush', covers: 1, durable: false },
    write(0, 512, 2),
    write(0, 512, 3),
    write(512, 8, 4),
    write(516, 8, 5),
    write(1024, 1536, 6),
    write(4096, 512, 7, true),
    { file: 'file', kind: 'grow', size: SIZE + 512, durable: false },
    write(SIZE, 512, 8),
  ];
  const found = {
    first: new Set<number>(),
    second: new Set<string>(),
    large: new Set<string>(),
    size: new Set<number>(),
  };
  for (let seed = 0; seed < 2000; seed++) {
    const { files } = cutPower({ file: new SparseBytes(SIZE) }, calls, new Random(seed));
    const file = files.file as SparseBytes;
    const bytes = file.toBuffer();
    found.first.add(bytes[0] ?? -1);
    found.second.add(`${bytes[512]}${bytes[516]}${bytes[520]}`);
    found.large.add(`${bytes[1024]}${bytes[1536]}${bytes[2048]}`);
    found.size.add(file.size);
    if (bytes[4096] !== 7) t.fail('a durable write is lost');
  }
  t.strictSame([...found.first].sort(), [1, 2, 3], 'each version of a sector, but not what the flush covered');
  t.strictSame([...found.second].sort(), ['111', '441', '455'], 'a sector has no later write without an earlier one');
  t.equal(found.large.size, 8, 'each sector for itself');
  t.ok(found.size.has(SIZE) && found.size.has(SIZE + 512), 'the size may be lost');
});

t.test('what a disk may contain', async (t) => {
  let calls = 0;
  const start = SparseBytes.from(Buffer.alloc(1536, 9));
  const wish = (offset: number, length: number, byte: number): Wish => {
    const bytes = Buffer.alloc(length, byte);
    return { kind: 'write', offset, length, bytes, punch: false, durable: false };
  };
  const content = (...sectors: number[]): Buffer => Buffer.concat(sectors.map((byte) => Buffer.alloc(512, byte)));
  const log = new Expectation(start, () => calls);
  log.acknowledge(log.begin(wish(0, 512, 1)));
  calls = 1;
  const flush = log.beginFlush();
  const waiting = log.begin(wish(0, 1024, 2));
  calls = 2;
  log.endFlush(flush);
  t.equal(log.compare(content(1, 9, 9)), null);
  t.equal(log.compare(content(2, 9, 9)), null, 'a request that was not acknowledged may be there in part');
  t.match(log.compare(content(9, 2, 9)), /byte 0: it has 0909.*not 0101.* or 0202.*write 0\+512 \(must be there\)/);
  log.acknowledge(waiting);
  const [one, two] = [log.begin(wish(1024, 512, 3)), log.begin(wish(1024, 256, 4))];
  t.equal(log.compare(content(2, 2, 9)), null);
  t.match(log.compare(content(1, 2, 9)), /byte 0/);
  log.acknowledge(one);
  log.acknowledge(two);
  const mixed = Buffer.concat([content(2, 2), Buffer.alloc(256, 4), Buffer.alloc(256, 3)]);
  t.equal(log.compare(content(2, 2, 3)), null, 'the first of two at the same time may be the last');
  t.equal(log.compare(mixed), null);
  t.match(log.compare(content(2, 2, 9)), /byte 1024/);
  t.equal(
    log.compare(content(1, 9, 9), 0, { calls: 2 }),
    null,
    'after a power cut only what was flushed must be there',
  );
  t.match(log.compare(content(9, 9, 9), 0, { calls: 2 }), /must be there/);
  t.equal(log.compare(content(9, 9, 9), 0, { calls: 1 }), null);
});
