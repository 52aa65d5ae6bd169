/** Reads and writes by io_submit: here on a file whose requests are done at once. */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { Aio } from '../../../mount/export/aio.js';
import { addSeals, E, memfdCreate } from '../../../system/libc.js';

const COUNT = 8;
const BYTES = 5000;

const directory = mkdtempSync(join(tmpdir(), 'aio-'));
const path = join(directory, 'file');
const aio = Aio.open(COUNT);
t.teardown(() => rmSync(directory, { recursive: true }));

t.test('many requests, as many at a time as there is room', { skip: aio === null && 'no io_setup here' }, async (t) => {
  if (aio === null) return;
  writeFileSync(path, Buffer.alloc(COUNT * BYTES));
  const fd = openSync(path, 'r+');
  for (let round = 0; round < 20; round++) {
    const at = (i: number): Buffer => Buffer.alloc(BYTES, `round ${round}, piece ${i}; `);
    const results: Promise<number>[] = [];
    for (let i = 0; aio.hasRoom; i++) {
      results.push(aio.transfer({ fd, isWrite: true, buffer: at(i), offset: i * BYTES }));
      // some are begun together, some are not
      if (i % 3 === round % 3) await null;
    }
    t.same(await Promise.all(results), Array(COUNT).fill(BYTES));
    const buffers = results.map(() => Buffer.alloc(BYTES));
    const reads = buffers.map((buffer, i) => aio.transfer({ fd, isWrite: false, buffer, offset: i * BYTES }));
    t.notOk(aio.hasRoom);
    t.same(await Promise.all(reads), Array(COUNT).fill(BYTES));
    t.ok(buffers.every((buffer, i) => buffer.equals(at(i))));
    t.ok(readFileSync(path).equals(Buffer.concat(buffers)));
  }
  const read = (buffer: Buffer, offset: number): Promise<number> =>
    aio.transfer({ fd, isWrite: false, buffer, offset });
  t.equal(await read(Buffer.alloc(100), COUNT * BYTES - 3), 3, 'at the end of the file');
  t.equal(await read(Buffer.alloc(100), COUNT * BYTES), 0, 'behind it');
  closeSync(fd);
  const closed = [read(Buffer.alloc(1), 0), read(Buffer.alloc(1), 0)];
  t.same(await Promise.all(closed), [0, 0], 'what the kernel does not take is left to another call');
  t.ok(aio.hasRoom);
});

t.test('errors of a request', { skip: aio === null && 'no io_setup here' }, async (t) => {
  const F_SEAL_WRITE = 8;
  const fd = memfdCreate('sealed');
  t.teardown(() => closeSync(fd));
  addSeals(fd, F_SEAL_WRITE);
  t.equal(await aio?.transfer({ fd, isWrite: true, buffer: Buffer.alloc(1), offset: 0 }), -E.EPERM);
});
