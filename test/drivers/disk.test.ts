/** The front: what it makes of a driver that gives the least, gives too much, or fails. */
import { constants } from 'node:os';
import t from 'tap';
import { frontDisk } from '../../drivers/disk.js';
import type { Change, Extent, RawDisk } from '../../drivers/driver.js';
import { FusetapError } from '../../drivers/errors.js';
import { oneSegment, windowOf } from '../../drivers/segments/one-segment.js';
import { bufferDisk, bufferFactory } from '../conformance/buffer-disk.js';
import { diskSuite } from '../conformance/suite.js';

const { errno: E } = constants;

diskSuite({
  name: 'the smallest disk',
  test: t,
  factory: bufferFactory,
  abilities: { maxSizeBytes: 2 ** 28, holes: false, shrink: false },
});

const writable = { readOnly: false };

function unsupported(): Promise<never> {
  return Promise.reject(Object.assign(new Error('no'), { errno: -E.EOPNOTSUPP }));
}

t.test('a driver is given only what is not empty and inside', async (t) => {
  const seen: string[] = [];
  const disk = frontDisk(
    {
      size: 1000,
      read: async (buffer, offset) => void seen.push(`read ${offset}+${buffer.length}`),
      write: async (buffer, offset, { durable }) => void seen.push(`write ${offset}+${buffer.length} ${durable}`),
      zero: async (offset, length, { punch, durable }) =>
        void seen.push(`zero ${offset}+${length} ${punch} ${durable}`),
      close: async () => void seen.push('close'),
    },
    writable,
  );
  await disk.read(Buffer.alloc(2000), 10);
  await disk.read(Buffer.alloc(5), 1000);
  await disk.write(Buffer.alloc(100), 950);
  await disk.write(Buffer.alloc(1), 0, { durable: true });
  await disk.write(Buffer.alloc(0), 0);
  await disk.zero(900, 2 ** 52, { punch: true });
  await disk.zero(1000, 5);
  await disk.flush();
  await disk.close();
  await disk.close();
  t.same(seen, ['read 10+990', 'write 950+50 false', 'write 0+1 true', 'zero 900+100 true false', 'close']);
});

t.test('zeros are written where a driver cannot zero: bounded, durable as asked, cut at sectors', async (t) => {
  const size = 5 << 20;
  for (const zero of [undefined, unsupported]) {
    const writes: { offset: number; length: number }[] = [];
    const raw: RawDisk = {
      ...bufferDisk(Buffer.alloc(size)),
      async write(buffer, offset, { durable }) {
        t.ok(durable);
        t.ok(buffer.every((byte) => byte === 0));
        writes.push({ offset, length: buffer.length });
      },
    };
    await frontDisk(zero ? { ...raw, zero } : raw, writable).zero(100, size, { durable: true });
    t.ok(writes.length > 1 && writes.every(({ length }) => length <= 1 << 20));
    t.ok(writes.slice(1).every(({ offset }) => offset % 512 === 0));
    t.equal(
      writes.reduce((at, { offset, length }) => (offset === at ? at + length : Number.NaN), 100),
      size,
    );
  }
});

t.test('zeroing that fails for another reason is not written instead', async (t) => {
  const raw = { ...bufferDisk(Buffer.alloc(10, 1)), zero: () => Promise.reject(new FusetapError('FAILED', 'broken')) };
  await t.rejects(frontDisk(raw, writable).zero(0, 10), { message: 'broken', operation: 'zero', offset: 0 });
});

t.test('extents are put in order', async (t) => {
  const answers: Record<string, { given: Extent[]; expected: Extent[] }> = {
    'nothing at all': { given: [], expected: [{ offset: 10, length: 80, hole: false }] },
    'too much': {
      given: [{ offset: 0, length: 1000, hole: true }],
      expected: [{ offset: 10, length: 80, hole: true }],
    },
    'gaps and equal neighbours': {
      given: [
        { offset: 10, length: 10, hole: true },
        { offset: 20, length: 10, hole: true },
        { offset: 40, length: 10, hole: false },
      ],
      expected: [
        { offset: 10, length: 20, hole: true },
        { offset: 30, length: 60, hole: false },
      ],
    },
    'overlaps and empty runs': {
      given: [
        { offset: 10, length: 30, hole: false },
        { offset: 20, length: 0, hole: true },
        { offset: 20, length: 100, hole: true },
      ],
      expected: [
        { offset: 10, length: 30, hole: false },
        { offset: 40, length: 50, hole: true },
      ],
    },
  };
  for (const [name, { given, expected }] of Object.entries(answers)) {
    const raw = { ...bufferDisk(Buffer.alloc(100)), extents: async () => given };
    t.same(await frontDisk(raw, writable).extents(10, 80), expected, name);
  }
});

t.test('extents that come in parts are asked for until the range is covered', async (t) => {
  const asked: number[] = [];
  const raw = {
    ...bufferDisk(Buffer.alloc(100)),
    extents: async (offset: number): Promise<Extent[]> => {
      asked.push(offset);
      return [{ offset, length: 30, hole: offset >= 60 }];
    },
  };
  t.same(await frontDisk(raw, writable).extents(0, 100), [
    { offset: 0, length: 60, hole: false },
    { offset: 60, length: 40, hole: true },
  ]);
  t.same(asked, [0, 30, 60, 90]);
});

t.test('changes are asked for inside the disk, and a disk without a base has none to tell', async (t) => {
  const asked: (readonly number[])[] = [];
  const changes = async (offset: number, length: number): Promise<Change[]> => {
    asked.push([offset, length]);
    return [{ offset: offset + 1, length: 2, kind: 'data' }];
  };
  const disk = frontDisk({ ...bufferDisk(Buffer.alloc(100)), changes }, writable);
  t.same(await disk.changes(90, 20), [{ offset: 91, length: 2, kind: 'data' }]);
  t.same(await disk.changes(100, 20), []);
  t.same(asked, [[90, 10]]);
  await t.rejects(disk.changes(-1, 20), RangeError);
  const other = frontDisk(bufferDisk(Buffer.alloc(100)), writable);
  await t.rejects(other.changes(0, 100), { code: 'UNSUPPORTED', operation: 'changes' });
});

t.test('extents a driver cannot tell are data', async (t) => {
  const raw = { ...bufferDisk(Buffer.alloc(100)), extents: unsupported };
  t.same(await frontDisk(raw, writable).extents(50, 100), [{ offset: 50, length: 50, hole: false }]);
});

t.test('errors of a driver say what was done and where', async (t) => {
  const fail = (error: Error) =>
    frontDisk(
      { ...bufferDisk(Buffer.alloc(100)), read: () => Promise.reject(error), flush: () => Promise.reject(error) },
      writable,
    );
  const buffer = Buffer.alloc(10);
  const system = Object.assign(new Error('EIO: i/o error, read'), { errno: -E.EIO, code: 'EIO' });
  const place = { operation: 'read', offset: 30 };
  await t.rejects(fail(system).read(buffer, 30), { code: 'FAILED', errno: E.EIO, cause: system, ...place });
  await t.rejects(fail(system).read(buffer, 30), { message: 'read at byte 30: EIO: i/o error, read' });
  await t.rejects(fail(system).flush(), { message: 'flush: EIO: i/o error, read', operation: 'flush' });
  const bare = new FusetapError('BUSY', 'held', { hint: 'wait', holders: [{ pid: 1 }] });
  await t.rejects(fail(bare).read(buffer, 30), { code: 'BUSY', hint: 'wait', holders: [{ pid: 1 }], ...place });
  const whole = new FusetapError('FAILED', 'bad block', { operation: 'verify', offset: 32 });
  t.equal(
    await fail(whole)
      .read(buffer, 30)
      .catch((error: unknown) => error),
    whole,
  );
  const mistake = new TypeError('x is not a function');
  t.equal(
    await fail(mistake)
      .read(buffer, 30)
      .catch((error: unknown) => error),
    mistake,
  );
});

t.test('a driver without write is read-only, whatever was asked for', async (t) => {
  const { size, read, close } = bufferDisk(Buffer.alloc(100));
  const disk = frontDisk({ size, read, close }, writable);
  t.equal(disk.readOnly, true);
  await t.rejects(disk.write(Buffer.alloc(1), 0), { code: 'DENIED', errno: E.EROFS });
});

t.test('the segments of a read-only disk are read-only', async (t) => {
  const window = { fd: 5, start: 0, size: 100, kind: 'file', readOnly: false, durable: true } as const;
  const raw = { ...bufferDisk(Buffer.alloc(100)), segments: oneSegment(window) };
  t.same(windowOf(frontDisk(raw, { readOnly: true })), { ...window, readOnly: true });
  t.same(windowOf(frontDisk(raw, writable)), window);
  t.equal(frontDisk({ ...raw, segments: oneSegment({ ...window, readOnly: true }) }, writable).readOnly, true);
  t.equal(frontDisk(bufferDisk(Buffer.alloc(1)), writable).segments, undefined);
});

t.test('a size that no disk can have is refused', async (t) => {
  for (const size of [0, -1, 1.5, Number.NaN, 2 ** 53]) {
    t.throws(() => frontDisk({ ...bufferDisk(Buffer.alloc(1)), size }, writable), RangeError);
  }
});

t.test('close waits for calls under way, and its failure is told each time', async (t) => {
  let release = (): void => {};
  let closes = 0;
  const disk = frontDisk(
    {
      ...bufferDisk(Buffer.alloc(100)),
      read: () => new Promise((resolve) => (release = resolve)),
      close: async () => {
        closes++;
        throw new Error('cannot close');
      },
    },
    writable,
  );
  const reading = disk.read(Buffer.alloc(1), 0);
  const closing = [disk.close(), disk.close()];
  for (const end of closing) end.catch(() => {});
  await t.rejects(disk.read(Buffer.alloc(1), 0), { code: 'FAILED', errno: E.EBADF });
  t.equal(closes, 0);
  release();
  t.equal(await reading, 1);
  for (const end of closing) await t.rejects(end, { message: 'cannot close' });
  t.equal(closes, 1);
});
