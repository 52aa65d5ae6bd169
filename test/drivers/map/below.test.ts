/** What a map is told of the disk below is true when it is told, whatever was written or forgotten since it was asked for. */
import fc from 'fast-check';
import t from 'tap';
import type { Place } from '../../../drivers/driver.js';
import { entryOf, MapBelow } from '../../../drivers/map/below.js';
import { DiskMap, type MapFile, type Range } from '../../../drivers/map/disk-map.js';
import { ASK, DATA, type GranuleEntry, SLICE_GRANULES, WRITABLE, ZEROS } from '../../../drivers/map/table.js';

const FILE: MapFile = { fd: -1, kind: 'file', readOnly: false, durable: false };
const GRANULE = 4096;
const SLICES = 3;
const GRANULES = SLICES * SLICE_GRANULES;
const NEAR = 7;
/** how much the base tells at a time */
const MOST = 300 * GRANULE;

/** A disk over a base, with a map. The base answers when the test says so. */
class Overlay {
  /** what the disk has itself */
  readonly own = new Map<number, GranuleEntry>();
  readonly map: DiskMap;
  readonly below: MapBelow;
  readonly #answers: (() => void)[] = [];

  constructor(slots: number) {
    this.map = new DiskMap({
      granuleBytes: GRANULE,
      sizeBytes: GRANULES * GRANULE,
      files: [FILE, FILE],
      startsUnknown: true,
      mostBytes: slots * SLICE_GRANULES * 8,
      sliceState: () => null,
      sliceEntries: (slice, tell) => {
        for (const [granule, entry] of this.own)
          if (Math.floor(granule / SLICE_GRANULES) === slice) tell(granule, entry);
      },
    });
    this.map.servedBy({ quiesce: () => settled() });
    this.below = new MapBelow({
      map: this.map,
      locate: (offset, length) =>
        new Promise((resolve) => this.#answers.push(() => resolve(placesIn(offset, Math.min(length, MOST))))),
      takenFromBelow: (range) => this.#takenFromBelow(range),
    });
  }

  #takenFromBelow({ offset, length }: Range): Range[] {
    const parts: Range[] = [];
    for (let at = offset; at < offset + length; at += GRANULE) {
      if (this.own.has(at / GRANULE)) continue;
      const last = parts.at(-1);
      const bytes = Math.min(GRANULE, offset + length - at);
      if (last !== undefined && last.offset + last.length === at) {
        parts[parts.length - 1] = { ...last, length: last.length + bytes };
      } else parts.push({ offset: at, length: bytes });
    }
    return parts;
  }

  get waits(): number {
    return this.#answers.length;
  }

  async answer(): Promise<void> {
    this.#answers.shift()?.();
    await settled();
  }

  change(granule: number, entry: GranuleEntry): void {
    this.own.set(granule, entry);
    this.map.set(granule, entry);
  }

  check(isKnown: (granule: number) => boolean = () => false): void {
    for (let granule = 0; granule < GRANULES; granule += granule % SLICE_GRANULES < 20 ? 1 : 31) {
      const { state, place } = this.map.entry(granule);
      const is = this.own.get(granule) ?? baseEntry(granule);
      if (state === ASK && (is === null || !isKnown(granule))) continue;
      if (state !== is?.state) throw new Error(`granule ${granule} is ${state}, not ${is?.state}`);
      if (state >= DATA && place !== is.place) throw new Error(`granule ${granule} is at ${place}, not ${is.place}`);
    }
  }
}

/** In the base, one granule in NEAR is zeros, and one is unknown; the others are moved by a granule and some bytes. */
function placesIn(offset: number, length: number): Place[] {
  const places: Place[] = [];
  for (let at = offset; at < offset + length; ) {
    const place = placeIn(at, offset + length - at);
    places.push(place);
    at += place.length;
  }
  return places;
}

function placeIn(offset: number, length: number): Place {
  const first = offset / GRANULE;
  const kind = first % NEAR;
  const granules = kind < NEAR - 2 ? NEAR - 2 - kind : 1;
  const range = { offset, length: Math.min(length, granules * GRANULE), depth: 0 };
  if (kind === NEAR - 2) return { ...range, state: 'zeros', file: null, place: 0 };
  if (kind === NEAR - 1) return { ...range, state: 'unknown', file: null, place: 0 };
  return { ...range, state: 'data', file: 1, place: offset + GRANULE + 13 };
}

function baseEntry(granule: number): GranuleEntry | null {
  return entryOf(placeIn(granule * GRANULE, GRANULE), granule * GRANULE);
}

function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

const granule = fc.tuple(fc.nat(SLICES - 1), fc.nat(3)).map(([slice, index]) => slice * SLICE_GRANULES + index);
const command = fc.oneof(
  { weight: 3, arbitrary: fc.record({ act: fc.constant('learn' as const), granule }) },
  {
    weight: 3,
    arbitrary: fc.record({ act: fc.constantFrom('write' as const, 'zero' as const, 'zero' as const), granule }),
  },
  { weight: 4, arbitrary: fc.record({ act: fc.constant('answer' as const), granule: fc.constant(0) }) },
);

t.test('what is told later is still true', async (t) => {
  let told = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(command, { minLength: 40, maxLength: 80 }),
      fc.integer({ min: 1, max: 2 }),
      async (commands, slots) => {
        const disk = new Overlay(slots);
        for (const { act, granule } of commands) {
          if (act === 'learn') disk.below.learn(granule, 3);
          else if (act === 'write') disk.change(granule, { state: WRITABLE, file: 0, place: granule * GRANULE });
          else if (act === 'zero') {
            const gone = disk.map.withdraw(granule, 1);
            await gone;
            disk.own.set(granule, { state: ZEROS, file: 0, place: 0 });
            disk.map.restore(granule, 1);
            disk.change(granule, { state: ZEROS, file: 0, place: 0 });
          } else await disk.answer();
          disk.check();
        }
        while (disk.waits > 0) await disk.answer();
        await settled();
        disk.check();
        for (let each = 0; each < GRANULES; each += 3) if (disk.map.entry(each).file === 1) told++;
      },
    ),
    { numRuns: 250 },
  );
  t.ok(told > 1000, `${told} granules were told`);
});

t.test('a slice is known when the base has answered, also if a write gave it its slot', async (t) => {
  const disk = new Overlay(SLICES);
  disk.change(5, { state: WRITABLE, file: 0, place: 5 * GRANULE });
  disk.below.learn(5, 1);
  await settled();
  while (disk.waits > 0) await disk.answer();
  disk.check((granule) => granule < SLICE_GRANULES);
  t.same(disk.map.entry(4), { state: DATA, file: 1, place: 5 * GRANULE + 13 });
  t.equal(disk.map.entry(SLICE_GRANULES).state, ASK);
  disk.below.learn(0, 20);
  await settled();
  t.equal(disk.waits, 0, 'it is not asked for again');
});

t.test('if the base fails, its granules stay unknown', async (t) => {
  const map = new DiskMap({ granuleBytes: GRANULE, sizeBytes: 10 * GRANULE, files: [FILE], sliceState: () => null });
  map.servedBy({ quiesce: async () => {} });
  const locate = async (): Promise<never> => {
    throw new Error('a damaged table');
  };
  const below = new MapBelow({ map, locate, takenFromBelow: (range) => [range] });
  below.learn(0, 10);
  await settled();
  t.equal(map.entry(0).state, ASK);
});
