/** Copying a disk to another one: equal to the byte whatever the target had, given up when asked to. */
import fc from 'fast-check';
import t from 'tap';
import { copyDisk, hasData } from '../../../drivers/copying/copy-disk.js';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import type { RawDisk } from '../../../drivers/driver.js';

const PAGE = 4096;
const PAGES = 64;

interface Bytes {
  readonly disk: Disk;
  readonly bytes: Buffer;
  /** the pages that are data, by the driver; a hole reads as zeros */
  readonly data: boolean[];
  flushes: number;
}

/** A disk in memory. @param pages of each page its byte, null: a hole */
function diskOf(pages: readonly (number | null)[], tail = 0): Bytes {
  const bytes = Buffer.alloc(pages.length * PAGE + tail);
  const data = [...pages.map((byte) => byte !== null), ...(tail > 0 ? [true] : [])];
  for (const [page, byte] of pages.entries()) bytes.fill(byte ?? 0, page * PAGE, (page + 1) * PAGE);
  const raw: RawDisk = {
    size: bytes.length,
    async read(buffer, offset) {
      bytes.copy(buffer, 0, offset, offset + buffer.byteLength);
    },
    async write(buffer, offset) {
      bytes.set(buffer, offset);
      data.fill(true, Math.floor(offset / PAGE), Math.ceil((offset + buffer.byteLength) / PAGE));
    },
    async zero(offset, length) {
      bytes.fill(0, offset, offset + length);
      data.fill(false, Math.ceil(offset / PAGE), Math.floor((offset + length) / PAGE));
    },
    async extents(offset, length) {
      return data.flatMap((isData, page) => {
        const [from, to] = [Math.max(offset, page * PAGE), Math.min(offset + length, (page + 1) * PAGE, bytes.length)];
        return to > from ? [{ offset: from, length: to - from, hole: !isData }] : [];
      });
    },
    async flush() {
      made.flushes += 1;
    },
    close: async () => {},
  };
  const made: Bytes = { disk: frontDisk(raw, { readOnly: false }), bytes, data, flushes: 0 };
  return made;
}

const never = new AbortController().signal;
const quietly = { signal: never, progress: () => {} };

t.test('equal to the byte, whatever both had', async (t) => {
  const page = fc.option(fc.constantFrom(0, 1, 7), { nil: null });
  const pages = fc.array(page, { minLength: PAGES, maxLength: PAGES });
  await fc.assert(
    fc.asyncProperty(pages, pages, fc.constantFrom(0, 1, 777), async (from, to, tail) => {
      const [disk, target] = [diskOf(from, tail), diskOf(to, tail)];
      await copyDisk(disk.disk, target.disk, quietly);
      t.ok(target.bytes.equals(disk.bytes));
      t.equal(target.flushes, 1, 'and durable');
    }),
    { numRuns: 50 },
  );
});

t.test('an empty target stays sparse', async (t) => {
  const disk = diskOf([null, 5, 0, null, ...Array(PAGES).fill(null)]);
  const target = diskOf(Array(PAGES + 4).fill(null));
  t.equal(await hasData(target.disk, target.bytes.length, never), false);
  await copyDisk(disk.disk, target.disk, quietly);
  t.same(
    target.data.flatMap((isData, page) => (isData ? [page] : [])),
    [1],
    'zeros are left out',
  );
  t.equal(await hasData(target.disk, target.bytes.length, never), true);
});

t.test('another size, or a disk that is only read', async (t) => {
  const [disk, small] = [diskOf([1, 2]), diskOf([null])];
  await t.rejects(copyDisk(disk.disk, small.disk, quietly), {
    code: 'USAGE',
    message: 'the disk has 8192 bytes, but the target has 4096',
  });
  const read = frontDisk({ size: 8192, read: async () => {}, close: async () => {} }, { readOnly: false });
  await t.rejects(copyDisk(disk.disk, read, quietly), { code: 'UNSUPPORTED' });
  await t.rejects(hasData(read, 8192, never), { code: 'UNSUPPORTED' });
});

t.test('given up', async (t) => {
  const abort = new AbortController();
  const disk = diskOf(Array(1024).fill(3));
  const target = diskOf(Array(1024).fill(null));
  const progress = (done: number): void => void (done > 0 && abort.abort(new Error('enough')));
  await t.rejects(copyDisk(disk.disk, target.disk, { signal: abort.signal, progress }), { message: 'enough' });
  t.notOk(target.bytes.equals(disk.bytes));
});
