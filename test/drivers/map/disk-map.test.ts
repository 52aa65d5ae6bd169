/** The map against a model: what it says of a granule is what was told last, or that it must be asked for. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { DiskMap, type MapFile, type SliceState } from '../../../drivers/map/disk-map.js';
import { ASK, DATA, MapLook, SLICE_GRANULES, WRITABLE, ZEROS } from '../../../drivers/map/table.js';

const FILE: MapFile = { fd: -1, kind: 'file', readOnly: false, durable: false };
const GRANULE = 4096;

interface Place {
  readonly state: typeof ZEROS | typeof DATA | typeof WRITABLE;
  readonly file: number;
  readonly place: number;
}

function mapOf(
  granules: number,
  more: { sliceState?: (slice: number) => SliceState; mostBytes?: number } = {},
): DiskMap {
  const map = new DiskMap({ granuleBytes: GRANULE, sizeBytes: granules * GRANULE - 5, files: [FILE, FILE], ...more });
  return withTable(map);
}

/** Without a table, a map ignores what it is told. */
function withTable(map: DiskMap): DiskMap {
  assert.ok(map.table);
  return map;
}

t.test('an entry keeps a place of any size', async (t) => {
  const map = mapOf(10);
  const places = [0, 1, 511, 4096, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 40 + 513, 2 ** 53 - 1];
  for (const [i, place] of places.entries()) {
    for (const file of [0, 1, 255]) {
      for (const state of [DATA, WRITABLE] as const) {
        map.set(i, { state, file, place });
        t.same(map.entry(i), { state, file, place });
      }
    }
  }
});

t.test('a run joins granules that follow one another in one file', async (t) => {
  const map = mapOf(10);
  const look = new MapLook(map.table);
  for (const granule of [0, 1, 2]) map.set(granule, { state: DATA, file: 1, place: 70_000 + granule * GRANULE });
  map.set(3, { state: WRITABLE, file: 1, place: 70_000 + 3 * GRANULE });
  map.set(4, { state: ZEROS, file: 0, place: 0 });
  map.set(5, { state: ZEROS, file: 0, place: 9 });
  t.equal(look.run(100, 5 * GRANULE), DATA);
  t.same([look.length, look.file, look.place], [3 * GRANULE - 100, 1, 70_100]);
  t.equal(look.run(100, 50), DATA);
  t.equal(look.length, 50);
  t.equal(look.run(3 * GRANULE, GRANULE * 2), WRITABLE);
  t.same([look.length, look.place], [GRANULE, 70_000 + 3 * GRANULE]);
  t.equal(look.run(4 * GRANULE + 1, 10 * GRANULE), ZEROS);
  t.equal(look.length, 2 * GRANULE - 1);
  t.equal(look.run(6 * GRANULE, 1), ASK);
});

t.test('shapes that cannot be are refused', async (t) => {
  for (const granuleBytes of [0, 256, 1000, 4097]) {
    t.throws(() => new DiskMap({ granuleBytes, sizeBytes: 1 << 20, files: [] }), RangeError);
  }
  const files = Array.from({ length: 257 }, () => FILE);
  t.throws(() => new DiskMap({ granuleBytes: 512, sizeBytes: 1 << 20, files }), RangeError);
});

t.test('a huge disk takes little memory', async (t) => {
  const map = new DiskMap({ granuleBytes: 65_536, sizeBytes: 2 ** 43, files: [FILE] });
  t.ok(map.table.memory.byteLength < 18 << 20);
  map.set(map.granules - 1, { state: DATA, file: 0, place: 512 });
  t.equal(map.entry(map.granules - 1).state, DATA);
  t.equal(map.entry(0).state, ASK);
});

t.test('a map that nobody serves has no table, and learns when it is served', async (t) => {
  const truth: SliceState[] = [{ state: ASK }, { state: DATA, file: 1 }];
  const isAsked = new Set<number>();
  const sliceState = (slice: number): SliceState => {
    isAsked.add(slice);
    return truth[slice] as SliceState;
  };
  const options = { granuleBytes: GRANULE, sizeBytes: 2 * SLICE_GRANULES * GRANULE, files: [FILE, FILE], sliceState };
  const map = new DiskMap({ ...options, startsUnknown: true });
  map.set(0, at(0));
  map.replace(1, 1, at(512));
  map.setSlices(1, 1, { state: ZEROS });
  t.same(map.learn(0, 2 * SLICE_GRANULES), []);
  await map.withdraw(2, 1);
  t.same([map.entry(0).state, map.entry(1).state, map.entry(SLICE_GRANULES).state, isAsked.size], [ASK, ASK, ASK, 0]);
  map.servedBy({ quiesce: async () => {} });
  t.equal(map.entry(SLICE_GRANULES).state, ASK);
  map.learn(SLICE_GRANULES, 1);
  t.equal(map.entry(SLICE_GRANULES).state, DATA);
  map.set(2, at(0));
  t.equal(map.entry(2).state, ASK, 'it was withdrawn before there was a table');
  map.restore(2, 1);
  map.set(2, at(0));
  t.equal(map.entry(2).state, DATA);
  const known = new DiskMap(options);
  t.equal(known.entry(SLICE_GRANULES).state, ASK);
  t.ok(known.table);
  t.equal(known.entry(SLICE_GRANULES).state, DATA, 'the table begins with what the driver knows');
});

t.test('each slice with a slot is learned once, whoever gave it the slot', async (t) => {
  const map = new DiskMap({
    granuleBytes: GRANULE,
    sizeBytes: 3 * SLICE_GRANULES * GRANULE,
    files: [FILE],
    sliceState: () => null,
  });
  map.servedBy({ quiesce: async () => {} });
  map.set(5, at(0));
  t.same(map.learn(0, 2 * SLICE_GRANULES), [0, 1]);
  t.same(map.learn(0, 2 * SLICE_GRANULES), []);
  map.setRun(0, SLICE_GRANULES, { state: ZEROS, file: 0, place: 0 });
  map.set(7, at(0));
  t.same(map.learn(0, 1), [0], 'it had lost its slot');
});

t.test('granules that are wholly in a range', async (t) => {
  const map = mapOf(10);
  const size = 10 * GRANULE - 5;
  for (const [offset, length, first, count] of [
    [0, size, 0, 10],
    [1, size - 1, 1, 9],
    [0, GRANULE - 1, 0, 0],
    [GRANULE, 2 * GRANULE, 1, 2],
    [GRANULE - 1, 2 * GRANULE, 1, 1],
    [9 * GRANULE, GRANULE - 6, 9, 0],
    [100, 200, 1, 0],
  ] as const) {
    t.same(map.wholeGranules(offset, length), { first, count }, `${length} bytes from ${offset} on`);
  }
  t.same(map.rangeOf(0), { offset: 0, length: size });
});

/** A server of a map whose threads go on when the test says so. */
class Threads {
  readonly #waits: (() => void)[] = [];

  get waits(): number {
    return this.#waits.length;
  }

  quiesce(): Promise<void> {
    return new Promise((resolve) => this.#waits.push(resolve));
  }

  /** Ends the wait that began first. */
  async goOn(): Promise<void> {
    this.#waits.shift()?.();
    await settled();
  }
}

/** Resolves when all that follows from what has happened is done. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

const at = (place: number, file = 0): Place => ({ state: DATA, file, place });

t.test('a granule that is replaced is unknown until no thread uses the old place', async (t) => {
  const map = mapOf(10);
  const threads = new Threads();
  map.servedBy(threads);
  for (let granule = 0; granule < 5; granule++) map.set(granule, at(granule * GRANULE));
  t.equal(map.entry(4).state, DATA, 'what was unknown is known at once');
  map.replace(1, 3, { state: WRITABLE, file: 1, place: 70_000 });
  const states = (): number[] => [0, 1, 2, 3, 4].map((granule) => map.entry(granule).state);
  t.same(states(), [DATA, ASK, ASK, ASK, DATA]);
  await settled();
  t.equal(threads.waits, 1, 'one wait for all of them');
  t.same(states(), [DATA, ASK, ASK, ASK, DATA]);
  await threads.goOn();
  t.same(states(), [DATA, WRITABLE, WRITABLE, WRITABLE, DATA]);
  t.same(map.entry(3), { state: WRITABLE, file: 1, place: 70_000 + 2 * GRANULE });
  t.equal(threads.waits, 0);
});

t.test('set and setRun replace what was in another place, and nothing else', async (t) => {
  const map = mapOf(10);
  const threads = new Threads();
  map.servedBy(threads);
  map.setRun(0, 6, at(0));
  map.set(0, at(512));
  map.set(1, { state: ZEROS, file: 0, place: 0 });
  map.set(2, { state: ASK, file: 0, place: 0 });
  map.set(3, at(3 * GRANULE));
  map.set(4, { state: WRITABLE, file: 1, place: 4 * GRANULE });
  const states = (): number[] => [0, 1, 2, 3, 4, 5].map((granule) => map.entry(granule).state);
  t.same(states(), [ASK, ASK, ASK, DATA, WRITABLE, DATA], 'the same place in another file needs no wait');
  map.set(2, at(1024));
  t.equal(map.entry(2).state, ASK, 'threads may still have the place before the last');
  await settled();
  await threads.goOn();
  t.same(states(), [DATA, ZEROS, DATA, DATA, WRITABLE, DATA]);
  t.same([map.entry(0).place, map.entry(2).place], [512, 1024]);
  map.set(1, { state: WRITABLE, file: 1, place: 2048 });
  t.equal(map.entry(1).place, 2048, 'zeros become known at once');
  await settled();
  t.equal(threads.waits, 0);
});

t.test('what is told last of a replaced granule counts', async (t) => {
  const map = mapOf(10);
  const threads = new Threads();
  map.servedBy(threads);
  map.setRun(0, 6, at(0));
  map.replace(0, 6, at(100_000));
  await settled();
  map.set(1, at(512));
  map.replace(2, 1, at(1024));
  const gone = map.withdraw(3, 2);
  map.replace(4, 1, at(9));
  await settled();
  t.equal(threads.waits, 2, 'the withdrawal has a wait of its own; what was told again has none');
  await threads.goOn();
  t.same(
    [0, 1, 2, 3, 4, 5].map((granule) => map.entry(granule)).map(({ state, place }) => (state === ASK ? null : place)),
    [100_000, 512, 1024, null, null, 100_000 + 5 * GRANULE],
  );
  await threads.goOn();
  await gone;
  t.equal(map.entry(3).state, ASK);
  map.restore(3, 2);
  map.set(4, at(7));
  t.equal(map.entry(4).place, 7);
});

t.test('several ranges are withdrawn with one wait, and restored one by one', async (t) => {
  const map = mapOf(10);
  const threads = new Threads();
  map.servedBy(threads);
  map.setRun(0, 10, at(0));
  const gone = map.withdrawAll([
    { first: 1, count: 2 },
    { first: 5, count: 1 },
  ]);
  t.equal(threads.waits, 1);
  await threads.goOn();
  await gone;
  map.setRun(0, 10, at(0));
  const known = (): boolean[] => Array.from({ length: 10 }, (_, granule) => map.entry(granule).state !== ASK);
  t.same(known(), [true, false, false, true, true, false, true, true, true, true]);
  map.restore(1, 2);
  map.setRun(0, 10, at(0));
  t.same(known(), [true, true, true, true, true, false, true, true, true, true]);
});

t.test('what is replaced during a wait waits for the next one', async (t) => {
  const map = mapOf(10);
  const threads = new Threads();
  map.servedBy(threads);
  map.setRun(0, 6, at(0));
  map.replace(0, 1, at(512));
  await settled();
  map.replace(1, 1, at(512));
  map.replace(2, 1, at(512));
  await settled();
  t.equal(threads.waits, 1);
  await threads.goOn();
  t.same([map.entry(0).place, map.entry(1).state], [512, ASK]);
  t.equal(threads.waits, 1);
  await threads.goOn();
  t.same([map.entry(1).state, map.entry(2).state], [DATA, DATA]);
});

t.test('a replaced granule whose slice loses its slot is as the driver tells', async (t) => {
  let truth = at(0);
  const map = new DiskMap({
    granuleBytes: GRANULE,
    sizeBytes: 3 * SLICE_GRANULES * GRANULE,
    files: [FILE],
    sliceState: () => null,
    sliceEntries: (slice, tell) => tell(slice * SLICE_GRANULES, truth),
    mostBytes: 4096,
  });
  const threads = new Threads();
  map.servedBy(threads);
  map.learn(0, 1);
  map.replace(0, 1, at(512));
  // the only slot is taken away, and given back with what is true by then
  map.learn(SLICE_GRANULES, 1);
  await settled();
  truth = at(1024);
  await threads.goOn();
  await threads.goOn();
  map.learn(0, 1);
  t.equal(map.entry(0).place, 1024);
  // the driver tells it already when the slot is filled
  map.replace(0, 1, truth);
  t.equal(map.entry(0).place, 1024);
});

t.test('a granule that threads may write is not replaced without a withdrawal', async (t) => {
  const map = mapOf(10);
  map.set(0, { state: WRITABLE, file: 0, place: 0 });
  map.set(0, { state: WRITABLE, file: 1, place: 512 });
  t.equal(map.entry(0).place, 512, 'there are no threads');
  map.servedBy(new Threads());
  t.throws(() => map.set(0, { state: WRITABLE, file: 0, place: 1024 }), RangeError);
  t.throws(() => map.set(0, { state: WRITABLE, file: 0, place: 512 }), RangeError);
  t.throws(() => map.replace(0, 1, { state: ZEROS, file: 0, place: 0 }), RangeError);
  map.replace(0, 1, { state: WRITABLE, file: 1, place: 512 });
  t.same(map.entry(0), { state: WRITABLE, file: 1, place: 512 });
  map.replace(0, 1, { state: ASK, file: 0, place: 0 });
  t.equal(map.entry(0).state, ASK);
});

/** Commands on a map of few slots. */
const command = fc.oneof(
  fc.record({
    act: fc.constant('set' as const),
    granule: fc.nat(6 * SLICE_GRANULES - 1),
    state: fc.constantFrom(ZEROS, DATA, WRITABLE),
    place: fc.nat(1 << 30),
  }),
  fc.record({
    act: fc.constant('change' as const),
    granule: fc.nat(6 * SLICE_GRANULES - 4),
    count: fc.integer({ min: 1, max: 3 }),
    place: fc.nat(1 << 30),
  }),
);

t.test('what the map says is true, whatever it had to forget', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(command, { maxLength: 60 }), fc.integer({ min: 1, max: 7 }), async (commands, slots) => {
      const truth = new Map<number, Place>();
      // slice 2 and up are the base until something else is told of a granule in them
      const sliceState = (slice: number): SliceState => {
        if (slice < 2) return { state: ASK };
        const isWhole = ![...truth.keys()].some((granule) => Math.floor(granule / SLICE_GRANULES) === slice);
        return isWhole ? { state: DATA, file: 1 } : { state: ASK };
      };
      const map = mapOf(6 * SLICE_GRANULES, { sliceState, mostBytes: slots * 4096 });
      const check = (granule: number): void => {
        const { state, file, place } = map.entry(granule);
        if (state === ASK) return;
        const base: Place = { state: DATA, file: 1, place: granule * GRANULE };
        const is = truth.get(granule) ?? (granule >= 2 * SLICE_GRANULES ? base : null);
        if (is === null || is.state !== state) throw new Error(`granule ${granule} is not ${state}`);
        if (state !== ZEROS && (is.file !== file || is.place !== place)) throw new Error(`granule ${granule} moved`);
      };
      for (const one of commands) {
        if (one.act === 'set') {
          const place: Place = { state: one.state, file: 0, place: one.place };
          truth.set(one.granule, place);
          map.set(one.granule, place);
        } else {
          const gone = map.withdraw(one.granule, one.count);
          for (let i = 0; i < one.count; i++) {
            if (map.entry(one.granule + i).state !== ASK) throw new Error('a withdrawn granule is known');
            map.set(one.granule + i, { state: ZEROS, file: 0, place: 0 });
            if (map.entry(one.granule + i).state !== ASK) throw new Error('a withdrawn granule became known');
          }
          await gone;
          map.restore(one.granule, one.count);
          for (let i = 0; i < one.count; i++) {
            const place: Place = { state: WRITABLE, file: 0, place: one.place + i * GRANULE };
            truth.set(one.granule + i, place);
            map.set(one.granule + i, place);
          }
        }
        for (let granule = 0; granule < map.granules; granule += 17) check(granule);
        for (const granule of truth.keys()) check(granule);
      }
    }),
    { numRuns: 150 },
  );
});

/** Commands on a map whose granules are in places that stay. */
const move = fc.oneof(
  fc.record({ act: fc.constantFrom('set' as const, 'replace' as const), granule: fc.nat(40), place: fc.nat(1 << 30) }),
  fc.record({ act: fc.constantFrom('zero' as const, 'change' as const), granule: fc.nat(40), place: fc.nat(1 << 30) }),
  fc.record({ act: fc.constant('goOn' as const), granule: fc.constant(0), place: fc.constant(0) }),
);

t.test('what is told without a wait is true, and is known when threads have gone on', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(move, { maxLength: 60 }), async (moves) => {
      const truth = new Map<number, Place>();
      const map = mapOf(SLICE_GRANULES);
      const threads = new Threads();
      map.servedBy(threads);
      const check = (isKnown: boolean): void => {
        for (const [granule, is] of truth) {
          const entry = map.entry(granule);
          if (entry.state === ASK && !isKnown) continue;
          if (entry.state !== is.state) throw new Error(`granule ${granule} is ${entry.state}, not ${is.state}`);
          if (is.state !== ZEROS && entry.place !== is.place) throw new Error(`granule ${granule} moved`);
        }
      };
      const withdrawals: Promise<void>[] = [];
      for (const { act, granule, place } of moves) {
        const is: Place = { state: act === 'zero' ? ZEROS : DATA, file: 0, place };
        if (act === 'goOn') {
          await threads.goOn();
        } else if (act === 'change') {
          const gone = map.withdraw(granule, 1).then(() => {
            map.restore(granule, 1);
            map.set(granule, truth.get(granule) ?? is);
          });
          withdrawals.push(gone);
          truth.set(granule, is);
        } else {
          truth.set(granule, is);
          if (act === 'replace') map.replace(granule, 1, is);
          else map.set(granule, is);
        }
        check(false);
      }
      await settled();
      while (threads.waits > 0) await threads.goOn();
      await Promise.all(withdrawals);
      await settled();
      while (threads.waits > 0) await threads.goOn();
      check(true);
    }),
    { numRuns: 300 },
  );
  t.pass();
});

t.test('whole slices need no memory for entries if each byte is at its own place', async (t) => {
  const map = mapOf(4 * SLICE_GRANULES, { mostBytes: 4096 });
  const look = new MapLook(map.table);
  map.setRun(0, 2 * SLICE_GRANULES, { state: WRITABLE, file: 1, place: 0 });
  map.setRun(2 * SLICE_GRANULES, SLICE_GRANULES, { state: DATA, file: 255, place: 2 * SLICE_GRANULES * GRANULE });
  map.setRun(3 * SLICE_GRANULES, SLICE_GRANULES, { state: ZEROS, file: 0, place: 0 });
  t.equal(look.run(5, 3 * SLICE_GRANULES * GRANULE), WRITABLE);
  t.same([look.length, look.file, look.place], [2 * SLICE_GRANULES * GRANULE - 5, 1, 5]);
  t.equal(look.run(2 * SLICE_GRANULES * GRANULE + 7, 1), DATA);
  t.same([look.file, look.place], [255, 2 * SLICE_GRANULES * GRANULE + 7]);
  t.equal(map.entry(4 * SLICE_GRANULES - 1).state, ZEROS);
  // the rest of the slice is not known to the driver, so only this granule is told
  map.set(SLICE_GRANULES, { state: DATA, file: 0, place: 5 });
  t.equal(map.entry(SLICE_GRANULES).state, DATA);
  t.equal(map.entry(0).state, WRITABLE);
});

t.test('a slice that gets a slot has all entries that the driver tells, but those that are changing', async (t) => {
  const map = new DiskMap({
    granuleBytes: GRANULE,
    sizeBytes: 2 * SLICE_GRANULES * GRANULE,
    files: [FILE],
    sliceState: () => null,
    sliceEntries: (slice, tell) => {
      for (const index of [1, 2, 3]) tell(slice * SLICE_GRANULES + index, { state: ZEROS, file: 0, place: 0 });
    },
  });
  map.learn(0, 1);
  t.equal(map.entry(1).state, ASK, 'no thread asks');
  map.servedBy({ quiesce: async () => {} });
  await map.withdraw(2, 1);
  map.learn(0, 1);
  t.same(
    [0, 1, 2, 3, 4].map((granule) => map.entry(granule).state),
    [ASK, ZEROS, ASK, ZEROS, ASK],
  );
  t.equal(map.entry(SLICE_GRANULES + 1).state, ASK, 'the other slice was not asked for');
  map.restore(2, 1);
  map.set(2, { state: ZEROS, file: 0, place: 0 });
  t.equal(map.entry(2).state, ZEROS);
});

t.test('a large range is withdrawn at once', async (t) => {
  const granules = 2 ** 31;
  const map = mapOf(granules);
  map.setSlices(0, granules / SLICE_GRANULES, { state: DATA, file: 1 });
  const begun = performance.now();
  await map.withdraw(5, granules - 10);
  t.ok(performance.now() - begun < 5000);
  t.same(
    [4, 5, SLICE_GRANULES, granules - 6].map((granule) => map.entry(granule).state),
    [ASK, ASK, ASK, ASK],
    'what the driver does not tell of the slices at the ends is unknown',
  );
  map.restore(5, granules - 10);
  map.setRun(0, granules, { state: ZEROS, file: 0, place: 0 });
  t.equal(map.entry(granules - 1).state, ZEROS);
});

t.test('withdraw waits for those who serve the map', async (t) => {
  const map = mapOf(10);
  map.set(1, { state: DATA, file: 0, place: 0 });
  let release = (): void => {};
  const away = map.servedBy({ quiesce: () => new Promise<void>((resolve) => (release = resolve)) });
  const gone = map.withdraw(1, 1);
  let isGone = false;
  void gone.then(() => (isGone = true));
  await new Promise((resolve) => setImmediate(resolve));
  t.equal(isGone, false);
  t.equal(map.entry(1).state, ASK);
  release();
  await gone;
  away();
  map.restore(1, 1);
  await map.withdraw(1, 1);
  t.pass('and not for those who do not any more');
});
