/**
 * Threads read a map while the main thread moves granules and fills their old places with others: no thread may ever
 * read a place that is not its granule's any more.
 */
import { once } from 'node:events';
import { ftruncateSync, writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import t, { type Test } from 'tap';
import { DiskMap } from '../../../../drivers/map/disk-map.js';
import { ASK, DATA, WRITABLE } from '../../../../drivers/map/table.js';
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
const REPLACEMENTS = 40_000;

/** Writes granules to a file: all words of a granule are its number. */
function writer(): (fd: number, place: number, word: number) => void {
  const words = Buffer.alloc(GRANULE);
  return (fd, place, word) => {
    for (let at = 0; at < GRANULE; at += 4) words.writeUInt32LE(word, at);
    writeSync(fd, words, 0, GRANULE, place);
  };
}

/** Starts threads that read a map. @returns ends them, and tells what they read */
async function startReaders(
  map: DiskMap,
  fds: readonly number[],
  granules: number,
): Promise<() => Promise<RaceResult[]>> {
  const memory = createThreadMemory(THREADS);
  const watch = new ThreadWatch(memory, THREADS);
  map.servedBy({ quiesce: () => watch.awaitPast(new Set([NODE])) });
  const end = new Int32Array(new SharedArrayBuffer(4));
  const workers = Array.from({ length: THREADS }, (_, thread) => {
    const shared = { memory, thread, table: map.table, fds, nodeId: NODE, granules, granuleBytes: GRANULE };
    const workerData: RaceData = { ...shared, end };
    return new Worker(new URL('./map-race-reader.js', import.meta.url), { workerData });
  });
  const nextMessages = (): Promise<unknown[]> => {
    return Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0] as unknown));
  };
  await nextMessages();
  return async () => {
    const results = nextMessages();
    Atomics.store(end, 0, 1);
    return (await results) as RaceResult[];
  };
}

function checkResults(t: Test, results: readonly RaceResult[]): void {
  for (const { wrong, reads, putOff } of results) {
    t.equal(wrong, null);
    t.ok(reads > 0, `${reads} reads`);
    t.ok(putOff > 0, `${putOff} reads were put off`);
  }
}

t.test('no thread reads a place that was given to another granule', { timeout: 120_000 }, async (t) => {
  const fd = memfdCreate('race');
  ftruncateSync(fd, (GRANULES + 64) * GRANULE);
  const write = writer();
  const files = [{ fd, kind: 'memory', readOnly: false, durable: false }] as const;
  const sizeBytes = GRANULES * GRANULE;
  const map = new DiskMap({ granuleBytes: GRANULE, sizeBytes, files, mostBytes: SLOTS * 4096 });
  const places = Array.from({ length: GRANULES }, (_, granule) => granule * GRANULE);
  const free = Array.from({ length: 64 }, (_, i) => (GRANULES + i) * GRANULE);
  for (const [granule, place] of places.entries()) write(fd, place, granule);
  for (const place of free) write(fd, place, 0xffff_ffff);

  const end = await startReaders(map, [fd], GRANULES);
  for (let move = 0; move < MOVES; move++) {
    const granule = Math.floor(Math.random() * GRANULES);
    await map.withdraw(granule, 1);
    const old = places[granule] as number;
    const fresh = free.shift() as number;
    // the old place belongs to nobody from now on
    write(fd, old, 0xffff_ffff);
    write(fd, fresh, granule);
    places[granule] = fresh;
    free.push(old);
    map.restore(granule, 1);
    for (let near = granule; near < Math.min(GRANULES, granule + 20); near++) {
      map.set(near, { state: WRITABLE, file: 0, place: places[near] as number });
    }
  }
  checkResults(t, await end());
});

t.test('no thread mixes the old and the new place of a granule that is replaced', { timeout: 120_000 }, async (t) => {
  // few, so that threads look at a granule while it is replaced
  const granules = 4;
  const fds = [memfdCreate('race'), memfdCreate('race')];
  // a place has a granule in one file, and none in the other
  for (const fd of fds) ftruncateSync(fd, (granules + REPLACEMENTS) * GRANULE);
  const write = writer();
  const files = fds.map((fd) => ({ fd, kind: 'memory', readOnly: true, durable: false }) as const);
  const map = new DiskMap({ granuleBytes: GRANULE, sizeBytes: GRANULES * GRANULE, files, mostBytes: SLOTS * 4096 });
  t.ok(map.table);
  for (const fd of fds) for (let i = 0; i < granules + REPLACEMENTS; i++) write(fd, i * GRANULE, 0xffff_ffff);
  for (let granule = 0; granule < granules; granule++) {
    write(fds[0] as number, granule * GRANULE, granule);
    map.set(granule, { state: DATA, file: 0, place: granule * GRANULE });
  }
  const end = await startReaders(map, fds, granules);
  let replaced = 0;
  for (let move = 0; move < REPLACEMENTS; move++) {
    const granule = Math.floor(Math.random() * granules);
    const place = (granules + move) * GRANULE;
    const file = (move + 1) % 2;
    write(fds[file] as number, place, granule);
    map.set(granule, { state: DATA, file, place });
    if (map.entry(granule).state === ASK) replaced++;
    if (move % 8 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  t.ok(replaced > REPLACEMENTS / 2, `${replaced} were unknown for a time`);
  const results = await end();
  for (const { wrong, reads } of results) {
    t.equal(wrong, null);
    t.ok(reads > 0, `${reads} reads`);
  }
});
