/** Large writes that bypass the lock of a file: which bytes they write, and which they leave to pwrite. */
import { closeSync, existsSync, fstatSync, ftruncateSync, openSync, readFileSync, readSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { dir } from 'tmp-promise';
import type { Window } from '../../../../drivers/driver.js';
import { MappedWindows } from '../../../../mount/fuse/event-loop/mapped-windows.js';
import { type MappedWindow, writeMapped } from '../../../../mount/fuse/thread/mapped-write.js';
import { addressOf, memfdCreate } from '../../../../system/libc.js';
import { eventually } from '../../../e2e/command.js';

const SIZE = (1 << 20) + 777;
const LENGTH = 100_000;
const SECTOR = 512;
const MEMORY_DIRECTORY = '/dev/shm';
const needsTmpfs = existsSync(MEMORY_DIRECTORY) ? false : `there is no ${MEMORY_DIRECTORY}`;

/** random, so that no copy of a wrong part looks right */
const DATA = Buffer.from(Array.from({ length: LENGTH }, (_, i) => (i * 2654435761) >>> 24));

async function openFile(t: Test, directory: string): Promise<number> {
  const { path, cleanup } = await dir({ tmpdir: directory, unsafeCleanup: true });
  const fd = openSync(join(path, 'image'), 'w+');
  t.teardown(async () => {
    closeSync(fd);
    await cleanup();
  });
  ftruncateSync(fd, SIZE);
  return fd;
}

function openMemory(t: Test): number {
  const fd = memfdCreate('image');
  t.teardown(() => closeSync(fd));
  ftruncateSync(fd, SIZE);
  return fd;
}

const windowOf = (fd: number, kind: Window['kind'], start = 0): Window => {
  return { fd, start, size: SIZE - start, kind, readOnly: false, durable: false };
};

/** The window, mapped until the test ends; `mappedAt` 0 if it is not mapped. */
function map(
  t: Test,
  window: Window,
  windows = new MappedWindows({ takeUse: () => false, mapsFiles: true }),
): MappedWindow {
  t.teardown(() => windows.unmap(2));
  return { window, mappedAt: windows.map(2, window) };
}

function content(fd: number): Buffer {
  const whole = Buffer.alloc(fstatSync(fd).size);
  readSync(fd, whole, 0, whole.length, 0);
  return whole;
}

/** The expected content of a file that was all zeros. */
function withBytes(bytes: Buffer, offset: number): Buffer {
  const whole = Buffer.alloc(SIZE);
  whole.set(bytes, offset);
  return whole;
}

/** the lines of /proc/self/maps that belong to images */
const mappings = (): string[] =>
  readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.includes('image'));

t.test('memory is written whole, wherever the window begins', async (t) => {
  for (const start of [0, 1, 4096, 5000]) {
    for (const offset of [0, 4097, SIZE - start - LENGTH]) {
      const window = windowOf(openMemory(t), 'memory', start);
      t.equal(writeMapped(map(t, window), addressOf(DATA), offset, LENGTH), LENGTH);
      t.ok(content(window.fd).equals(withBytes(DATA, start + offset)), `${offset} of a window at ${start}`);
    }
  }
});

t.test('the last sector of a file in memory is left to pwrite', { skip: needsTmpfs }, async (t) => {
  const window = windowOf(await openFile(t, MEMORY_DIRECTORY), 'file', 300);
  t.equal(writeMapped(map(t, window), addressOf(DATA), 1000, LENGTH), LENGTH - SECTOR);
  t.ok(content(window.fd).equals(withBytes(DATA.subarray(0, -SECTOR), 1300)));
});

t.test('a range that is not wholly inside is left to pwrite', async (t) => {
  const window = windowOf(openMemory(t), 'memory');
  const mapped = map(t, window);
  for (const offset of [SIZE - LENGTH + 1, SIZE, SIZE + 4096, 2 ** 53 - 1]) {
    t.equal(writeMapped(mapped, addressOf(DATA), offset, LENGTH), 0);
  }
  t.ok(content(window.fd).equals(Buffer.alloc(SIZE)));
});

t.test(
  'a write to an image that has shrunk does not grow it, and the process lives',
  { skip: needsTmpfs },
  async (t) => {
    const window = windowOf(await openFile(t, MEMORY_DIRECTORY), 'file');
    const mapped = map(t, window);
    for (const end of [SIZE - 1, LENGTH, LENGTH - 1, 4096, 1, 0]) {
      ftruncateSync(window.fd, end);
      t.equal(writeMapped(mapped, addressOf(DATA), SIZE - LENGTH, LENGTH), 0);
      t.ok(content(window.fd).equals(Buffer.alloc(end)), `${end} bytes are left`);
    }
    // as if it shrinks between the check of its size and that of its pages
    const unseen: MappedWindow = { ...mapped, window: { ...window, kind: 'memory' } };
    for (const end of [0, 3 * 4096, LENGTH - 4096]) {
      ftruncateSync(window.fd, end);
      t.equal(writeMapped(unseen, addressOf(DATA), 0, LENGTH), 0);
      t.ok(content(window.fd).equals(Buffer.alloc(end)), 'nothing, not a part');
    }
  },
);

t.test('only writable images in memory are mapped', async (t) => {
  const memory = openMemory(t);
  t.not(map(t, windowOf(memory, 'memory')).mappedAt, 0);
  t.equal(map(t, { ...windowOf(memory, 'memory'), readOnly: true }).mappedAt, 0);
  t.equal(map(t, { ...windowOf(memory, 'memory'), size: 2 ** 53 - 1 }).mappedAt, 0, 'nor what has no room');
  t.equal(map(t, windowOf(await openFile(t, tmpdir()), 'block')).mappedAt, 0);
  if (needsTmpfs) return;
  const file = windowOf(await openFile(t, MEMORY_DIRECTORY), 'file');
  t.not(map(t, file).mappedAt, 0);
  const memoryOnly = new MappedWindows({ takeUse: () => false, mapsFiles: false });
  t.equal(map(t, file, memoryOnly).mappedAt, 0, 'unless it is not to be');
});

t.test('unmapping frees the mapping', async (t) => {
  const windows = new MappedWindows({ takeUse: () => false, mapsFiles: true });
  const window = windowOf(openMemory(t), 'memory', 5000);
  t.same(mappings(), []);
  windows.map(7, window);
  t.equal(mappings().length, 1);
  windows.unmap(6);
  t.equal(mappings().length, 1);
  windows.unmap(7);
  t.same(mappings(), []);
  windows.unmap(7);
});

t.test('written pages count as memory of the process until there was no write for a while', async (t) => {
  let uses = 1;
  const windows = new MappedWindows({ takeUse: () => uses-- > 0, mapsFiles: true });
  const window = windowOf(openMemory(t), 'memory');
  const mapped = map(t, window, windows);
  const heldKilobytes = (): number => Number(/^Rss: +(\d+) kB/m.exec(sectionOf(mapped.mappedAt))?.[1]);
  t.equal(heldKilobytes(), 0);
  writeMapped(mapped, addressOf(DATA), 0, LENGTH);
  t.equal(heldKilobytes(), 100);
  windows.used();
  const begun = performance.now();
  await eventually('the copy in memory is let go', 20_000, () => heldKilobytes() === 0);
  t.ok(performance.now() - begun > 1500, 'a second look finds no use');
  t.ok(content(window.fd).equals(withBytes(DATA, 0)), 'and the image keeps it');
  // and again, as new
  uses = 0;
  writeMapped(mapped, addressOf(DATA), LENGTH, LENGTH);
  windows.used();
  await eventually('the copy in memory is let go', 20_000, () => heldKilobytes() === 0);
});

/** The entry of smaps for the mapping at an address. */
function sectionOf(address: number): string {
  const text = readFileSync('/proc/self/smaps', 'utf8');
  const from = text.indexOf(`\n${address.toString(16)}-`);
  return text.slice(from, text.indexOf('\nVmFlags', from));
}
