/** Saving a disk to a file: equal to the byte, as sparse as the disk, given up when asked to. */
import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { dir } from 'tmp-promise';
import { saveDisk } from '../../../drivers/copying/save-disk.js';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import type { RawDisk } from '../../../drivers/driver.js';

const MIB = 1 << 20;

/** A disk of a buffer; with extents where `data` says what is data. */
function diskOf(bytes: Buffer, data?: readonly [from: number, to: number][]): Disk {
  const raw: RawDisk = {
    size: bytes.length,
    async read(buffer, offset) {
      bytes.copy(buffer, 0, offset, offset + buffer.byteLength);
    },
    close: async () => {},
  };
  const extents = async (): Promise<{ offset: number; length: number; hole: boolean }[]> => {
    const all: { offset: number; length: number; hole: boolean }[] = [];
    let at = 0;
    for (const [from, to] of data ?? []) {
      all.push({ offset: at, length: from - at, hole: true }, { offset: from, length: to - from, hole: false });
      at = to;
    }
    return [...all, { offset: at, length: bytes.length - at, hole: true }];
  };
  return frontDisk(data ? { ...raw, extents } : raw, { readOnly: true });
}

async function save(disk: Disk, signal = new AbortController().signal) {
  const { path: directory, cleanup } = await dir({ unsafeCleanup: true });
  t.teardown(cleanup);
  const file = await open(join(directory, 'copy'), 'w+');
  const steps: [number, number][] = [];
  try {
    await saveDisk(disk, file.fd, { signal, progress: (...step) => void steps.push(step) });
    return { bytes: await file.readFile(), stats: await stat(join(directory, 'copy')), steps };
  } finally {
    await file.close();
  }
}

t.test('equal to the byte, zeros left out', async (t) => {
  const bytes = Buffer.alloc(5 * MIB + 777);
  bytes.fill(7, MIB - 10, MIB + 10);
  bytes[bytes.length - 1] = 1;
  const { bytes: copy, stats, steps } = await save(diskOf(bytes));
  t.ok(copy.equals(bytes));
  t.ok(stats.blocks * 512 <= 4 * 4096, `${stats.blocks} blocks`);
  t.same(steps.at(-1), [bytes.length, bytes.length]);
});

t.test('only data is read', async (t) => {
  const bytes = Buffer.alloc(4 * MIB, 1);
  const { bytes: copy, steps } = await save(
    diskOf(bytes, [
      [5000, 9000],
      [3 * MIB - 1, 3 * MIB + 1],
    ]),
  );
  const expected = Buffer.alloc(4 * MIB);
  bytes.copy(expected, 5000, 5000, 9000);
  bytes.copy(expected, 3 * MIB - 1, 3 * MIB - 1, 3 * MIB + 1);
  t.ok(copy.equals(expected));
  t.same(steps.at(-1), [4002, 4002]);
});

t.test('given up, and a disk that cannot be read', async (t) => {
  const disk = diskOf(Buffer.alloc(MIB, 1));
  await t.rejects(save(disk, AbortSignal.abort(new Error('given up'))), { message: 'given up' });
  await disk.close();
  await t.rejects(save(disk), { code: 'FAILED' });
});
