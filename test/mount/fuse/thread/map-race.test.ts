/**
 * Threads read a map while the main thread moves granules and fills their old places with others: no thread may ever
 * read a place that is not its granule's any more.
 */
import { once } from 'node:events';
import { ftruncateSync, writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import { DiskMap } from '../../../../drivers/map/disk-map.js';
import { WRITABLE } from '../../../../drivers/map/table.js';
import { createThreadMemory, ThreadWatch } from '../../../../mount/fuse/thread/thread-control.js';
import { memfdCreate } from '../../../../system/libc.js';
import type { RaceData, RaceResult } from './map-race-reader.js';

const NODE = 7;
const GRANULE = 512;
const GRANULES = 2048;
/** fewer than there are slices, so that slots are emptied too */
const SLOTS = 3;
const THREADS = 3;
const MOVES = 4000;

t.test('no thread reads a place that was given to another granule', { timeout: 120_000 }, async (t) => {
  const fd = memfdCreate('race');
  ftruncateSync(fd, (GRANULES + 64) * GRANULE);
  const words = Buffer.alloc(GRANULE);
  const write = (place: number, word: number): void => {
    for (let at = 0; at < GRANULE; at += 4) words.writeUInt32LE(word, at);
    writeSync(fd, words, 0, GRANULE, place);
  };
  const files = [{ fd, kind: 'memory', readOnly: false, durable: false }] as const;
  const sizeBytes = GRANULES * GRANULE;
  const map = new DiskMap({ granuleBytes: GRANULE, sizeBytes, files, mostBytes: SLOTS * 4096 });
  const memory = createThreadMemory(THREADS);
  const watch = new ThreadWatch(memory, THREADS);
  map.servedBy({ quiesce: () => watch.awaitPast(new Set([NODE])) });
  const places = Array.from({ length: GRANULES }, (_, granule) => granule * GRANULE);
  const free = Array.from({ length: 64 }, (_, i) => (GRANULES + i) * GRANULE);
  for (const [granule, place] of places.entries()) write(place, granule);
  for (const place of free) write(place, 0xffff_ffff);

  const end = new Int32Array(new SharedArrayBuffer(4));
  const workers = Array.from({ length: THREADS }, (_, thread) => {
    const shared = { memory, thread, table: map.table, fd, nodeId: NODE, granules: GRANULES, granuleBytes: GRANULE };
    const workerData: RaceData = { ...shared, end };
    return new Worker(new URL('./map-race-reader.js', import.meta.url), { workerData });
  });
  const results = Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0] as RaceResult));
  for (let move = 0; move < MOVES; move++) {
    const granule = Math.floor(Math.random() * GRANULES);
    await map.withdraw(granule, 1);
    const old = places[granule] as number;
    const fresh = free.shift() as number;
    // the old place belongs to nobody from now on
    write(old, 0xffff_ffff);
    write(fresh, granule);
    places[granule] = fresh;
    free.push(old);
    map.restore(granule, 1);
    for (let near = granule; near < Math.min(GRANULES, granule + 20); near++) {
      map.set(near, { state: WRITABLE, file: 0, place: places[near] as number });
    }
  }
  Atomics.store(end, 0, 1);
  for (const { wrong, reads, putOff } of await results) {
    t.equal(wrong, null);
    t.ok(reads > 0, `${reads} reads`);
    t.ok(putOff > 0, `${putOff} reads were put off`);
  }
});
