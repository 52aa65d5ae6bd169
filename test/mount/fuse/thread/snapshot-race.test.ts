/**
 * Threads read and write a snapshot by its map while the main thread copies, zeroes and withdraws granules of it: no write
 * that was acknowledged is lost, no read is older than the last acknowledged write or discard, and nothing is written in
 * place to memory that was freed.
 */
import { closeSync, ftruncateSync, writeSync } from 'node:fs';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import { type Disk, frontDisk } from '../../../../drivers/disk.js';
import type { Places, RawDisk, Segment } from '../../../../drivers/driver.js';
import { cutSegments, segmentsDisk } from '../../../../drivers/segments/segments.js';
import { layoutOf } from '../../../../drivers/snapshot/layout.js';
import { memoryCalls } from '../../../../drivers/snapshot/memory-calls.js';
import { snapshotDisk } from '../../../../drivers/snapshot/snapshot-disk.js';
import { isHole, PRIVATE, States } from '../../../../drivers/snapshot/states.js';
import { createThreadMemory, ThreadWatch } from '../../../../mount/fuse/thread/thread-control.js';
import { memfdCreate } from '../../../../system/libc.js';
import {
  type Asked,
  END,
  fillSector,
  GRANULE,
  OF_BASE,
  PAUSE,
  type RaceData,
  type RaceResult,
  RUN,
  SECTOR,
} from './snapshot-race-thread.js';

const NODE = 7;
const THREADS = 3;
const GRANULES = 3 * 512 + 10;
const SIZE = GRANULES * GRANULE;
/** the base ends its first segment in the middle of this granule */
const CUT = 517;
/** granules that are used at one time */
const HOT = 16;
const ROUNDS = 120;
const CHANGES = 60;
/** changes of the main thread under way at one time */
const AT_ONCE = 6;

const shared = (words: number): Int32Array => new Int32Array(new SharedArrayBuffer(words * 4));
const random = (below: number): number => Math.floor(Math.random() * below);

/**
 * @param isOthers the base is not segments: it tells later where its bytes are, and they have other places than in the
 *   memory
 */
function makeBase(isOthers: boolean): { disk: Disk; fd: number } {
  const fd = memfdCreate('base');
  const bytes = new Uint8Array(SIZE);
  for (let number = 0; number < SIZE / SECTOR; number++) {
    fillSector(bytes.subarray(number * SECTOR, (number + 1) * SECTOR), number, OF_BASE);
  }
  const first = CUT * GRANULE + 1024;
  ftruncateSync(fd, SIZE + 5000);
  // the second part of the disk comes first in the file
  writeSync(fd, bytes, first, SIZE - first, 0);
  writeSync(fd, bytes, 0, first, SIZE - first + 5000);
  const common = { fd, kind: 'memory', readOnly: true, durable: false } as const;
  const segments = [
    { ...common, offset: 0, start: SIZE - first + 5000, size: first },
    { ...common, offset: first, start: 0, size: SIZE - first },
  ];
  const raw = segmentsDisk(segments, async () => {});
  return { disk: frontDisk(isOthers ? byPlaces(raw, segments) : raw, { readOnly: true }), fd };
}

function byPlaces(raw: RawDisk, segments: readonly Segment[]): RawDisk {
  const { segments: _, ...others } = raw;
  const { fd, kind } = segments[0] as Segment;
  const locate: Places['locate'] = async (offset, length) => {
    // meanwhile granules are written, and slots are taken away
    await sleep(random(4));
    // less than what was asked for
    const part = cutSegments(segments, offset, Math.min(length, 200 * GRANULE))[0] as Segment;
    return [{ offset, length: part.size, state: 'data', file: 0, place: part.start, depth: 0 }];
  };
  return { ...others, places: { files: [{ fd, kind, readOnly: true, durable: false }], locate } };
}

class Race {
  readonly #base: ReturnType<typeof makeBase>;
  readonly #memoryFd = memfdCreate('snapshot');
  readonly #calls = memoryCalls(this.#memoryFd);
  readonly #layout = layoutOf(SIZE);
  readonly raw: RawDisk;
  readonly #zeroings = shared(GRANULES);
  readonly #phase = shared(2);
  readonly #hot = shared(HOT);
  readonly #results: Promise<RaceResult>[];
  #version = 0x4000_0000;

  constructor(mapBytes: number, isOthers: boolean) {
    this.#base = makeBase(isOthers);
    ftruncateSync(this.#memoryFd, this.#layout.totalBytes);
    Atomics.store(this.#phase, 0, PAUSE);
    const parts = { base: this.#base.disk, layout: this.#layout, calls: this.#calls, memoryFd: this.#memoryFd };
    this.raw = snapshotDisk({ ...parts, readOnly: false, mapBytes });
    const map = this.raw.map?.map;
    if (map === undefined) throw new Error('a snapshot has a map');
    const memory = createThreadMemory(THREADS);
    const watch = new ThreadWatch(memory, THREADS);
    map.servedBy({ quiesce: () => watch.awaitPast(new Set([NODE])) });
    const files = map.files.map(({ fd, delta = 0 }) => ({ fd, delta }));
    const common = { memory, table: map.table, files, nodeId: NODE, hot: this.#hot };
    this.#results = Array.from({ length: THREADS }, (_, thread) => {
      const own = { thread, answered: shared(1), bytes: new Uint8Array(new SharedArrayBuffer(GRANULE)) };
      return this.#start({ ...common, ...own, zeroings: this.#zeroings, phase: this.#phase });
    });
  }

  #start(workerData: RaceData): Promise<RaceResult> {
    const worker = new Worker(new URL('./snapshot-race-thread.js', import.meta.url), { workerData });
    return new Promise((resolve, reject) => {
      worker.on('error', reject);
      worker.on('message', (message: Asked | RaceResult) => {
        if (!('kind' in message)) return resolve(message);
        this.#serve(message, workerData).catch(reject);
      });
    });
  }

  async #serve({ kind, offset, length }: Asked, { bytes, answered }: RaceData): Promise<void> {
    const buffer = new Uint8Array(length);
    if (kind === 'read') {
      await this.raw.read(buffer, offset);
      bytes.set(buffer);
    } else {
      buffer.set(bytes.subarray(0, length));
      await this.raw.write?.(buffer, offset, { durable: false });
    }
    Atomics.store(answered, 0, 1);
    Atomics.notify(answered, 0);
  }

  /** Makes changes of its own: zeros, and writes of the last sectors of granules. */
  async change(): Promise<void> {
    let left = CHANGES;
    const lane = async (): Promise<void> => {
      while (left-- > 0) {
        const granule = this.#hot[random(HOT)] as number;
        if (random(2) === 0) await this.#zero(granule, 1 + random(3));
        else await this.#write(granule);
        await nextTurn();
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, lane));
  }

  async #write(granule: number): Promise<void> {
    const number = granule * (GRANULE / SECTOR) + 6 + random(2);
    const bytes = new Uint8Array(SECTOR);
    fillSector(bytes, number, ++this.#version);
    await this.raw.write?.(bytes, number * SECTOR, { durable: false });
  }

  async #zero(first: number, wanted: number): Promise<void> {
    const count = Math.min(wanted, GRANULES - first);
    const granules = Array.from({ length: count }, (_, i) => first + i);
    // so that a number that is odd means one
    if (granules.some((granule) => (this.#zeroings[granule] as number) % 2 === 1)) return;
    for (const granule of granules) Atomics.add(this.#zeroings, granule, 1);
    await this.raw.zero?.(first * GRANULE, count * GRANULE, { punch: true, durable: false });
    for (const granule of granules) Atomics.add(this.#zeroings, granule, 1);
  }

  /** Pauses the threads, and gives them other granules. @returns granules that have memory although they should not, or have none */
  async look(): Promise<string[]> {
    Atomics.store(this.#phase, 0, PAUSE);
    while (Atomics.load(this.#phase, 1) < THREADS) await nextTurn();
    const states = new States(this.#layout, this.#calls).read(0, GRANULES);
    const wrong = [...states.entries()].flatMap(([granule, state]) => {
      const hasMemory = !isHole(this.#calls, granule, 1);
      return hasMemory === (state === PRIVATE) ? [] : [`granule ${granule}: state ${state}, memory ${hasMemory}`];
    });
    const near = random(GRANULES - HOT);
    for (let i = 0; i < HOT; i++) this.#hot[i] = i < HOT - 2 ? near + i : ([CUT, 512][HOT - 1 - i] ?? 0);
    Atomics.store(this.#phase, 0, RUN);
    Atomics.notify(this.#phase, 0);
    while (Atomics.load(this.#phase, 1) > 0) await nextTurn();
    return wrong;
  }

  async end(): Promise<RaceResult[]> {
    Atomics.store(this.#phase, 0, END);
    const results = await Promise.all(this.#results);
    closeSync(this.#memoryFd);
    closeSync(this.#base.fd);
    return results;
  }
}

for (const [name, mapBytes, isOthers] of [
  ['enough memory for the map', 16 << 20, false],
  ['slots for two slices', 2 * 4096, false],
  ['a base that is not segments', 16 << 20, true],
  ['such a base, and slots for two slices', 2 * 4096, true],
] as const) {
  t.test(`threads and the main thread change a snapshot, ${name}`, { timeout: 120_000 }, async (t) => {
    const race = new Race(mapBytes, isOthers);
    await race.raw.activate?.();
    for (let round = 0; round < ROUNDS; round++) {
      const wrong = await race.look();
      if (wrong.length > 0) t.fail(`round ${round}: ${wrong.join('; ')}`);
      await race.change();
    }
    for (const { wrong, inPlace, asked, reads } of await race.end()) {
      t.same(wrong.slice(0, 5), []);
      t.ok(inPlace > 0 && asked > 0 && reads > 0, `${inPlace} writes in place, ${asked} asked for, ${reads} reads`);
    }
  });
}
