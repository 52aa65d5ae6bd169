/** Reads and writes that need not wait for a disk: they do all, or leave the rest to the caller, and never hide an error. */
import { closeSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { wholeImageDisk } from '../../drivers/segments/growing-file.js';
import { WithoutWaiting } from '../../drivers/segments/without-waiting.js';
import { memfdCreate } from '../../system/libc.js';
import { fileSystemOf } from '../../system/proc.js';

const KIB = 1024;

function fileIn(t: Test, directory: string, flags = 'w+'): number {
  const made = mkdtempSync(join(directory, 'without-waiting-'));
  const path = join(made, 'a');
  closeSync(openSync(path, 'w'));
  const fd = openSync(path, flags);
  t.teardown(() => {
    closeSync(fd);
    rmSync(made, { recursive: true, force: true });
  });
  return fd;
}

const places: [name: string, open: (t: Test) => { fd: number; kind: 'file' | 'memory' }][] = [
  ['a memfd', (t) => ({ fd: closed(t, memfdCreate('without-waiting')), kind: 'memory' })],
  ['/dev/shm', (t) => ({ fd: fileIn(t, '/dev/shm'), kind: 'file' })],
  ['the directory of the test', (t) => ({ fd: fileIn(t, t.testdir({})), kind: 'file' })],
];

function closed(t: Test, fd: number): number {
  t.teardown(() => closeSync(fd));
  return fd;
}

for (const [name, openPlace] of places) {
  t.test(name, async (t) => {
    const { fd, kind } = openPlace(t);
    const now = new WithoutWaiting({ fd, kind });
    t.comment(`${name} is on ${kind === 'memory' ? 'memory' : fileSystemOf(fd)}`);
    const bytes = Buffer.from(Array.from({ length: 100 * KIB }, (_, i) => (i * 31) % 251));
    for (let round = 0; round < 2; round++) {
      const done = now.write(bytes, 1000);
      t.ok(done >= 0 && done <= bytes.length, `${done} bytes were written at once`);
      if (kind === 'memory' || fileSystemOf(fd) === 'tmpfs') t.equal(done, bytes.length);
      writeSync(fd, bytes, done, bytes.length - done, 1000 + done);
      const read = Buffer.alloc(bytes.length);
      if (now.read(read, 1000)) t.ok(read.equals(bytes));
    }
    // what is in the page cache is read at once, if the file system can tell
    t.equal(now.read(Buffer.alloc(10), 1000 + bytes.length - 5), false, 'the end of the file is left to the caller');
    t.equal(now.read(Buffer.alloc(512 * KIB), 0), false, 'so is a large read');
    t.equal(now.write(Buffer.alloc(512 * KIB), 0), 0, 'and a large write');
    t.equal(now.read(Buffer.alloc(0), 0), false);
  });
}

t.test('errors are left to the caller', async (t) => {
  const readOnly = fileIn(t, '/dev/shm', 'r');
  t.equal(new WithoutWaiting({ fd: readOnly, kind: 'file' }).write(Buffer.alloc(10), 0), 0);
  const none = new WithoutWaiting({ fd: 10_000, kind: 'file' });
  t.equal(none.read(Buffer.alloc(10), 0), false);
  t.equal(none.write(Buffer.alloc(10), 0), 0);
});

t.test('a disk on tmpfs, and an image that shrinks', async (t) => {
  const fd = fileIn(t, '/dev/shm');
  ftruncateSync(fd, 64 * KIB);
  const disk = wholeImageDisk({ fd, start: 0, size: 64 * KIB, kind: 'file', readOnly: false, durable: false });
  await disk.write?.(Buffer.alloc(10, 1), 100, { durable: false });
  const read = Buffer.alloc(12);
  await disk.read(read, 99);
  t.same([...read], [0, ...Array.from({ length: 10 }, () => 1), 0]);
  ftruncateSync(fd, 50);
  await t.rejects(disk.read(Buffer.alloc(10), 100), /has shrunk/);
  await t.rejects(async () => disk.write?.(Buffer.alloc(10, 1), 100, { durable: false }), /has shrunk/);
  t.equal(readSync(fd, Buffer.alloc(100), 0, 100, 0), 50, 'it was not filled with zeros');
});
