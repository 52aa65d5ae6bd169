/** What window-sync.ts answers beyond what the suite asks it: its own clamping, errors as numbers, waiting, threads. */
import { execFileSync } from 'node:child_process';
import { ftruncate } from 'node:fs';
import { constants } from 'node:os';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import t, { type Test } from 'tap';
import type { Window } from '../../drivers/driver.js';
import {
  allocateWindow,
  durably,
  flushWindow,
  readWindow,
  readWindowNoWait,
  seekWindow,
  writeWindow,
  type Zeroing,
  zeroWindow,
} from '../../drivers/segments/window-sync.js';
import { addressOf, mapShared, memfdCreate, SEEK_DATA, SEEK_HOLE } from '../../system/libc.js';
import { closeFd } from '../conformance/close-fd.js';
import { type MadeImage, makeImage } from '../conformance/driver-factory.js';
import { patternBytes } from '../conformance/pattern.js';

const { errno: E } = constants;
const SIZE = 10_000;
const ftruncateAsync = promisify(ftruncate);
const buffer = Buffer.alloc(SIZE);
const address = addressOf(buffer);
const PUNCH: Zeroing = { punch: true, zeros: { address, bytes: buffer } };

async function openWindow(
  t: Test,
  changes: Partial<Window> = {},
  size = SIZE,
): Promise<{ w: Window; made: MadeImage }> {
  const pieces = [{ offset: 0, length: size, seed: 1 }];
  const made = await makeImage({ size, pieces, readOnly: false });
  t.teardown(() => made.dispose());
  return { made, w: { fd: made.image.fd, start: 0, size, kind: 'file', readOnly: false, durable: false, ...changes } };
}

async function allocatedBytes({ file }: MadeImage): Promise<number> {
  return (await file.stat()).blocks * 512;
}

t.test('reads and writes clamp by themselves', async (t) => {
  const { w } = await openWindow(t);
  for (const read of [readWindow, readWindowNoWait]) {
    t.equal(read(w, address, SIZE - 5, 100), 5);
    t.equal(read(w, address, SIZE, 100), 0);
    t.equal(read(w, address, 2 ** 60, 100), 0);
    t.equal(read(w, address, 0, 0), 0);
  }
  t.equal(writeWindow(w, address, SIZE - 5, 100), 5);
  t.equal(writeWindow(w, address, SIZE, 100), -E.ENOSPC);
  t.equal(writeWindow(w, address, 2 ** 60, 100), -E.ENOSPC);
  t.equal(writeWindow(w, address, SIZE, 0), 0);
});

t.test('a read-only window is EROFS for all that writes', async (t) => {
  const { w } = await openWindow(t, { readOnly: true });
  t.equal(writeWindow(w, address, 0, 10), -E.EROFS);
  t.equal(zeroWindow(w, 0, 10, PUNCH), -E.EROFS);
  t.equal(allocateWindow(w, 0, 10), -E.EROFS);
  t.equal(flushWindow(w), 0);
});

t.test('errors of the system come as numbers', async (t) => {
  const { w } = await openWindow(t, { fd: 999_999 });
  t.equal(readWindow(w, address, 0, 10), -E.EBADF);
  t.equal(readWindowNoWait(w, address, 0, 10), -E.EBADF);
  t.equal(writeWindow(w, address, 0, 10), -E.EBADF);
  t.equal(writeWindow(durably(w), address, 0, 10), -E.EBADF);
  t.equal(flushWindow(w), -E.EBADF);
  t.equal(zeroWindow(w, 0, 10, PUNCH), -E.EBADF);
  t.equal(allocateWindow(w, 0, 10), -E.EBADF);
  t.equal(seekWindow(w, 0, SEEK_DATA), -E.EBADF);
});

t.test('a write that fails part-way fails, because a loop device takes a short count for success', async (t) => {
  const { w, made } = await openWindow(t, {}, 1 << 20);
  // the second page of the mapping lies beyond its file: touching it is EFAULT
  const memory = memfdCreate('one page');
  t.teardown(() => closeFd(memory));
  await ftruncateAsync(memory, 4096);
  const source = new Uint8Array(mapShared(memory, 8192));
  t.equal(writeWindow(w, addressOf(source), 0, 8192), -E.EFAULT);
  t.equal(writeWindow(durably(w), addressOf(source), 0, 8192), -E.EFAULT);
  t.equal(writeWindow(w, addressOf(source) + 4096, 0, 4096), -E.EFAULT);
  t.equal((await made.file.stat()).size, 1 << 20);
});

t.test('allocate takes space inside, and nothing at all beyond the end', async (t) => {
  const { w, made } = await openWindow(t, {}, 1 << 20);
  t.equal(zeroWindow(w, 0, 1 << 20, PUNCH), 0);
  t.equal(await allocatedBytes(made), 0);
  t.equal(allocateWindow(w, 4096, (1 << 20) - 4095), -E.ENOSPC);
  t.equal(allocateWindow(w, 1 << 20, 1), -E.ENOSPC);
  t.equal(allocateWindow(w, 2 ** 60, 2 ** 52), -E.ENOSPC);
  t.equal(await allocatedBytes(made), 0, 'not touched');
  t.equal(allocateWindow(w, 0, 1 << 20), 0);
  t.ok((await allocatedBytes(made)) >= 1 << 20);
  t.equal((await made.file.stat()).size, 1 << 20, 'the size stays');
  t.equal(allocateWindow({ ...w, kind: 'block' }, 0, 4096), -E.EOPNOTSUPP);
});

t.test('seek finds data and holes inside the window', async (t) => {
  const MIB = 1 << 20;
  const { w: whole } = await openWindow(t, {}, 4 * MIB);
  zeroWindow(whole, MIB, MIB, PUNCH);
  const w: Window = { ...whole, start: MIB / 2, size: 2 * MIB };
  t.equal(seekWindow(w, 0, SEEK_DATA), 0);
  t.equal(seekWindow(w, 0, SEEK_HOLE), MIB / 2);
  t.equal(seekWindow(w, MIB / 2, SEEK_DATA), MIB + MIB / 2);
  t.equal(seekWindow(w, MIB + MIB / 2, SEEK_HOLE), 2 * MIB, 'the end is a hole, though the file goes on');
  t.equal(seekWindow(w, 2 * MIB, SEEK_DATA), -E.ENXIO);
  t.equal(seekWindow(w, 2 * MIB, SEEK_HOLE), -E.ENXIO);
  t.equal(seekWindow(w, 0, 0), -E.EINVAL);
  const inHole: Window = { ...whole, start: MIB, size: MIB / 2 };
  t.equal(seekWindow(inHole, 0, SEEK_DATA), -E.ENXIO, 'data beyond the window is not in it');
  t.equal(seekWindow(inHole, 5, SEEK_HOLE), 5);
  const block: Window = { ...whole, kind: 'block' };
  t.equal(seekWindow(block, 5, SEEK_DATA), 5);
  t.equal(seekWindow(block, 5, SEEK_HOLE), 4 * MIB);
});

t.test('no-wait reads give what is cached and EAGAIN for what is not', async (t) => {
  const size = 4 << 20;
  const { w, made } = await openWindow(t, {}, size);
  const into = Buffer.alloc(1 << 20);
  if (readWindowNoWait(w, addressOf(into), 0, into.length) === -E.EAGAIN) {
    t.comment('the file system of the directory for temporary files cannot tell: nothing to see here');
    return;
  }
  t.ok(into.equals(patternBytes(0, into.length, 1)));
  await made.file.sync();
  execFileSync('dd', [`if=${made.image.path}`, 'iflag=nocache', 'count=0'], { stdio: 'ignore' });
  t.equal(readWindowNoWait(w, addressOf(into), 1 << 20, into.length), -E.EAGAIN);
  t.equal(readWindow(w, addressOf(into), 1 << 20, into.length), into.length);
  t.equal(readWindowNoWait(w, addressOf(into), 1 << 20, into.length), into.length);
  t.ok(into.equals(patternBytes(1 << 20, into.length, 1)));
});

t.test('memory: no-wait reads never wait, flush is nothing, zeroing gives the memory back', async (t) => {
  const fd = memfdCreate('window-sync');
  t.teardown(() => closeFd(fd));
  const w: Window = { fd, start: 0, size: 8192, kind: 'memory', readOnly: false, durable: false };
  t.equal(writeWindow(durably(w), addressOf(patternBytes(0, 8192, 2)), 0, 8192), 8192);
  t.equal(readWindowNoWait(w, address, 0, SIZE), 8192);
  t.ok(buffer.subarray(0, 8192).equals(patternBytes(0, 8192, 2)));
  t.equal(flushWindow({ ...w, fd: -1 }), 0);
  t.equal(zeroWindow(w, 0, SIZE, { ...PUNCH, punch: false }), 0);
  t.equal(seekWindow(w, 0, SEEK_DATA), -E.ENXIO);
});

t.test('threads that write the same sectors do not tear them', async (t) => {
  const sectors = 256;
  const { w } = await openWindow(t, {}, sectors * 512);
  const ends = [1, 2].map(
    (byte) =>
      new Promise<number>((resolve, reject) => {
        const worker = new Worker(new URL('./window-sync-writer.js', import.meta.url), { workerData: { w, byte } });
        worker.once('error', reject).once('exit', resolve);
      }),
  );
  t.same(await Promise.all(ends), [0, 0]);
  const content = Buffer.alloc(w.size);
  t.equal(readWindow(w, addressOf(content), 0, w.size), w.size);
  const torn = Array.from({ length: sectors }, (_, i) => new Set(content.subarray(i * 512, (i + 1) * 512)).size > 1);
  t.equal(torn.filter(Boolean).length, 0);
});
