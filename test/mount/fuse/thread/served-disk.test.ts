/** Disks of several windows and disks with a map, as threads serve them: against a buffer with the same bytes. */
import { closeSync, ftruncateSync, readSync, writeSync } from 'node:fs';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import type { Window } from '../../../../drivers/driver.js';
import { DiskMap } from '../../../../drivers/map/disk-map.js';
import { ASK, DATA, type GranuleState, WRITABLE, ZEROS } from '../../../../drivers/map/table.js';
import { durably } from '../../../../drivers/segments/window-sync.js';
import { mapOf } from '../../../../mount/fuse/event-loop/kernel-transport.js';
import { NOT_SERVED, WindowServer } from '../../../../mount/fuse/thread/serve-window.js';
import {
  type Places,
  placesOf,
  type ServedDisk,
  type ServedWindow,
} from '../../../../mount/fuse/thread/served-disk.js';
import { createThreadMemory, ThreadGate } from '../../../../mount/fuse/thread/thread-control.js';
import { NO_TURNS } from '../../../../mount/fuse/thread/write-turns.js';
import { createLedger, Ledger } from '../../../../mount/ledger/ledger.js';
import { memfdCreate } from '../../../../system/libc.js';
import { sent } from '../window-fixture.js';
import { fallocateIn, fsyncIn, lseekIn, message, readIn, struct, writeIn } from '../wire.js';

const [READ, WRITE, FSYNC, FALLOCATE, LSEEK] = [15, 16, 20, 43, 46];
const GRANULE = 512;
const ODD = 77;
const O_DSYNC = 0o10000;

function memory(t: Test, bytes: Buffer): number {
  const fd = memfdCreate('served');
  t.teardown(() => closeSync(fd));
  ftruncateSync(fd, bytes.length);
  writeSync(fd, bytes, 0, bytes.length, 0);
  return fd;
}

function served(fd: number, size = Number.MAX_SAFE_INTEGER, start = 0): ServedWindow {
  // as of a file on a disk: memory would ask for credit
  const window: Window = { fd, start, size, kind: 'file', readOnly: false, durable: false };
  const none = { canReadNoWait: false, mappedAt: 0, turns: NO_TURNS, mayGrow: false };
  return { window, durably: durably(window), ...none };
}

/** Sends requests to one thread's server. */
function serverOf(disk: ServedDisk): (opcode: number, body: Buffer) => Buffer | null {
  const gate = new ThreadGate(createThreadMemory(1), 0);
  gate.givePermit = () => {};
  const server = new WindowServer(new Ledger(createLedger()), gate);
  const places: Places = placesOf(disk);
  return (opcode, body) => {
    server.request.bytes.set(message({ opcode, unique: 6n, nodeId: 2 }, body));
    const length = server.serve(places);
    return length === NOT_SERVED ? null : sent(server, length);
  };
}

const dataOf = (reply: Buffer | null): Buffer | null => reply?.subarray(16) ?? null;
const errorOf = (reply: Buffer | null): number | null => reply?.readInt32LE(4) ?? null;

t.test('segments: a request in one is served, one that crosses an end is not', async (t) => {
  const bytes = Buffer.from(Array.from({ length: 3000 }, (_, i) => (i * 7) % 251));
  const [a, b] = [memory(t, bytes.subarray(1000)), memory(t, bytes.subarray(0, 1000))];
  const segments = [
    { offset: 0, served: served(b, 1000) },
    { offset: 1000, served: served(a, 500) },
    { offset: 1500, served: served(a, 1500, 500) },
  ];
  const ask = serverOf({ ledgerIndex: 0, flushIndex: 0, segments, map: null });
  fc.assert(
    fc.property(fc.nat(3200), fc.nat(700), (offset, length) => {
      const data = dataOf(ask(READ, readIn(offset, length)));
      const crosses = [1000, 1500].some((end) => offset < end && offset + length > end);
      if (crosses) return data === null;
      return data?.equals(bytes.subarray(offset, offset + length)) === true;
    }),
    { numRuns: 2000 },
  );
  t.equal(ask(WRITE, writeIn(999, Buffer.from('xy'))), null);
  t.same(dataOf(ask(WRITE, writeIn(1000, Buffer.from('xy'))))?.readUInt32LE(0), 2);
  t.same(dataOf(ask(READ, readIn(1000, 2))), Buffer.from('xy'));
  t.equal(errorOf(ask(WRITE, writeIn(3000, Buffer.from('x')))), -28, 'at the end');
  t.equal(errorOf(ask(FSYNC, fsyncIn(1n))), 0, 'all are flushed');
  t.equal(ask(LSEEK, lseekIn(0, 3)), null, 'data may go on in the next segment');
  t.equal(ask(FALLOCATE, fallocateIn(3, 990, 20)), null);
  t.equal(errorOf(ask(FALLOCATE, fallocateIn(3, 1000, 20))), 0);
  t.same(dataOf(ask(READ, readIn(1000, 20))), Buffer.alloc(20));
});

/** A disk with a map of random entries. */
interface Scene {
  readonly states: readonly GranuleState[];
  readonly places: readonly number[];
}

const GRANULES = 12;
const SIZE = GRANULES * GRANULE - ODD;

const scene: fc.Arbitrary<Scene> = fc.record({
  states: fc.array(fc.constantFrom<GranuleState>(ASK, ZEROS, DATA, DATA, WRITABLE, WRITABLE), {
    minLength: GRANULES,
    maxLength: GRANULES,
  }),
  // often one after the other, so that runs are long
  places: fc.oneof(
    fc.constant(Array.from({ length: GRANULES }, (_, i) => i)),
    fc.shuffledSubarray(
      Array.from({ length: GRANULES }, (_, i) => i),
      { minLength: GRANULES, maxLength: GRANULES },
    ),
  ),
});

t.test('a map: what it knows is served, and nothing else', async (t) => {
  const content = Buffer.from(Array.from({ length: 40 * GRANULE }, (_, i) => (i * 13 + (i >> 9)) % 253));
  const fds = [memory(t, content), memory(t, content)];
  await fc.assert(
    fc.asyncProperty(
      scene,
      fc.array(
        fc.record({ writes: fc.boolean(), offset: fc.nat(SIZE + 50), length: fc.integer({ min: 1, max: 3000 }) }),
        {
          minLength: 30,
          maxLength: 60,
        },
      ),
      fc.nat(2 * GRANULE),
      async ({ states, places }, requests, start) => {
        for (const fd of fds) writeSync(fd, content, 0, content.length, 0);
        const files = fds.map((fd) => ({ fd, kind: 'file', readOnly: false, durable: false }) as const);
        const map = new DiskMap({ granuleBytes: GRANULE, sizeBytes: SIZE, files });
        const { table } = map;
        const model = Buffer.alloc(SIZE);
        for (const [granule, state] of states.entries()) {
          const [file, place] = [granule % 2, (places[granule] as number) * GRANULE + 3];
          map.set(granule, { state, file, place });
          if (state >= DATA) content.copy(model, granule * GRANULE, place, place + GRANULE);
        }
        const size = SIZE - start;
        const view = { table, files: fds.map((fd) => served(fd)), start, size, readOnly: false };
        const ask = serverOf({ ledgerIndex: 0, flushIndex: 0, segments: [], map: view });
        for (const { writes, offset, length } of requests) {
          const end = Math.min(offset + length, size);
          const touched = states.slice(Math.floor((start + offset) / GRANULE), Math.ceil((start + end) / GRANULE));
          if (writes) {
            const bytes = Buffer.alloc(length, offset % 256);
            const reply = ask(WRITE, writeIn(offset, bytes));
            if (offset >= size) {
              if (errorOf(reply) !== -28) throw new Error('a write after the end');
            } else if (reply === null) {
              if (touched.every((state) => state === WRITABLE)) throw new Error('a write in place was not served');
            } else {
              if (touched.some((state) => state !== WRITABLE)) throw new Error('a write was served out of place');
              if (dataOf(reply)?.readUInt32LE(0) !== end - offset) throw new Error('a short write');
              bytes.copy(model, start + offset, 0, end - offset);
            }
          } else {
            const data = dataOf(ask(READ, readIn(offset, length)));
            if (offset >= size) {
              if (data?.length !== 0) throw new Error('a read after the end');
            } else if (touched.includes(ASK)) {
              if (data !== null) throw new Error('an unknown granule was served');
            } else if (data?.equals(model.subarray(start + offset, start + end)) !== true) {
              throw new Error(`wrong bytes at ${offset}`);
            }
          }
        }
      },
    ),
    { numRuns: 200 },
  );
  t.pass('random maps and requests');
});

t.test(
  'a map: a write to several places that fails at a later one fails, although some bytes are written',
  async (t) => {
    const fd = memory(t, Buffer.alloc(8 * GRANULE));
    // a place in the second file cannot be written
    const files = [fd, -1].map((each) => ({ fd: each, kind: 'file', readOnly: false, durable: false }) as const);
    const map = new DiskMap({ granuleBytes: GRANULE, sizeBytes: 8 * GRANULE, files });
    t.ok(map.table);
    for (const granule of [0, 1, 3]) map.set(granule, { state: WRITABLE, file: 0, place: (7 - granule) * GRANULE });
    for (const granule of [2, 4]) map.set(granule, { state: WRITABLE, file: 1, place: granule * GRANULE });
    const view = { table: map.table, files: files.map((file) => served(file.fd)), start: 0, size: 8 * GRANULE };
    const ask = serverOf({ ledgerIndex: 0, flushIndex: 0, segments: [], map: { ...view, readOnly: false } });
    const bytes = Buffer.from(Array.from({ length: 3 * GRANULE }, (_, i) => i % 241));
    t.equal(errorOf(ask(WRITE, writeIn(9, bytes))), -9, 'EBADF: a loop device would take a short count for success');
    t.same(dataOf(ask(READ, readIn(9, 2 * GRANULE - 9))), bytes.subarray(0, 2 * GRANULE - 9));
    t.equal(
      errorOf(ask(WRITE, writeIn(2 * GRANULE + 9, bytes.subarray(0, GRANULE)))),
      -9,
      'nothing was written: EBADF',
    );
    t.equal(ask(WRITE, writeIn(3 * GRANULE, bytes)), null, 'a granule that is not known: nothing is written here');
    t.same(dataOf(ask(READ, readIn(3 * GRANULE, GRANULE))), Buffer.alloc(GRANULE));
  },
);

t.test('a map: the delta of a file is added to places, and memory of a map takes no credit', async (t) => {
  const content = Buffer.from(Array.from({ length: 8 * GRANULE }, (_, i) => (i * 17) % 251));
  const fds = [memory(t, content), memory(t, content)];
  const kinds = ['memory', 'file'] as const;
  const deltas = [0, -2 * GRANULE + 5];
  const files = fds.map((fd, i) => {
    const kind = kinds[i] as 'memory' | 'file';
    return { fd, kind, readOnly: false, durable: false, delta: deltas[i] as number };
  });
  const map = new DiskMap({ granuleBytes: GRANULE, sizeBytes: 6 * GRANULE, files });
  t.ok(map.table);
  map.setRun(0, 2, { state: WRITABLE, file: 0, place: 0 });
  map.setRun(2, 4, { state: DATA, file: 1, place: 2 * GRANULE });
  const view = mapOf({ map, start: 3, readOnly: false }, 6 * GRANULE - 3);
  // a ledger in which nothing was granted: a thread that asked for credit would wait for an answer
  const ask = serverOf({ ledgerIndex: 0, flushIndex: 0, segments: [], map: view });
  const model = Buffer.concat([content.subarray(3, 2 * GRANULE), content.subarray(5, 5 + 4 * GRANULE)]);
  for (const [offset, length] of [
    [0, 10],
    [GRANULE, 2 * GRANULE],
    [2 * GRANULE, 3 * GRANULE],
    [0, 6 * GRANULE],
  ] as const) {
    t.same(dataOf(ask(READ, readIn(offset, length))), model.subarray(offset, offset + length), `at ${offset}`);
  }
  t.equal(dataOf(ask(WRITE, writeIn(7, Buffer.from('xy'))))?.readUInt32LE(0), 2);
  const bytes = Buffer.alloc(2);
  readSync(fds[0] as number, bytes, 0, 2, 10);
  t.equal(bytes.toString(), 'xy');
  t.same(
    view.files.map(({ mayGrow }) => mayGrow),
    [false, false],
  );
});

t.test('a map: requests that need the driver are not served', async (t) => {
  const fd = memory(t, Buffer.alloc(8 * GRANULE, 'a'));
  const files = [{ fd, kind: 'file', readOnly: false, durable: false }] as const;
  const map = new DiskMap({ granuleBytes: GRANULE, sizeBytes: 4 * GRANULE, files });
  const { table } = map;
  for (let granule = 0; granule < 4; granule++)
    map.set(granule, { state: WRITABLE, file: 0, place: granule * GRANULE });
  const view = { table, files: [served(fd)], start: 0, size: 4 * GRANULE, readOnly: false };
  const ask = serverOf({ ledgerIndex: 0, flushIndex: 0, segments: [], map: view });
  t.equal(ask(WRITE, writeIn(0, Buffer.from('x'), O_DSYNC)), null, 'a durable write');
  t.equal(ask(FSYNC, fsyncIn(1n)), null);
  t.equal(ask(FALLOCATE, fallocateIn(3, 0, 20)), null);
  t.equal(ask(LSEEK, lseekIn(0, 3)), null);
  t.same(dataOf(ask(WRITE, writeIn(5, Buffer.from('xy')))), struct(8, { u32: { 0: 2 } }));
  const bytes = Buffer.alloc(2);
  readSync(fd, bytes, 0, 2, 5);
  t.equal(bytes.toString(), 'xy');
  const readOnly = serverOf({ ledgerIndex: 0, flushIndex: 0, segments: [], map: { ...view, readOnly: true } });
  t.equal(errorOf(readOnly(WRITE, writeIn(5, Buffer.from('xy')))), -30, 'a read-only disk');
  // a file that was added to the map, and of which the thread does not know yet
  map.set(0, { state: DATA, file: 1, place: 0 });
  t.equal(ask(READ, readIn(0, 1)), null);
});
