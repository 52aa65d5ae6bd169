/** Random operations on disks of unusual sizes, compared with the model. */
import { createRequire } from 'node:module';
import type { Arbitrary } from 'fast-check';
import { applyOperation, checkAll, makeModel, type Operation } from './model.js';
import type { Piece } from './pattern.js';
import { withDisk } from './session.js';
import type { SuiteOptions } from './suite.js';

const fc = loadFastCheck();

const SIZES = [1, 511, 512, 1300, 16 * 4096 + 1, 1024 * 4096 + 1];
const MAX_REQUEST_BYTES = 20_000;

export function randomTests({ name, test, factory, abilities, runs = 12 }: SuiteOptions): void {
  const seed = Number(process.env.FUSETAP_TEST_SEED ?? Date.now() % 2 ** 31);
  console.log(`# ${name}: FUSETAP_TEST_SEED=${seed}`);
  for (const size of SIZES) {
    test.test(`${name}: random operations on ${size} bytes`, { skip: false }, async () => {
      const property = fc.asyncProperty(
        pieces(size),
        operations(size, abilities.writes ?? true),
        async (initial, script) => {
          await withDisk(factory, { size, pieces: initial }, async (session) => {
            const model = makeModel(size, initial);
            await checkAll(session, model);
            for (const operation of script) await applyOperation(session, model, operation);
            await checkAll(session, model);
          });
        },
      );
      await fc.assert(property, { seed, numRuns: runs, endOnFailure: runs <= 2 });
    });
  }
}

/** Offsets where bugs are likely: around the start, the end, sectors and pages; else any, also beyond the end. */
function offsets(size: number): Arbitrary<number> {
  const near = (place: number) => fc.integer({ min: Math.max(0, place - 3), max: place + 3 });
  return fc.oneof(
    fc.integer({ min: 0, max: size + 700 }),
    near(0),
    near(size),
    fc.integer({ min: 0, max: Math.floor(size / 512) }).chain((sector) => near(sector * 512)),
    fc.integer({ min: 0, max: Math.floor(size / 4096) }).chain((page) => near(page * 4096)),
  );
}

function lengths(max: number): Arbitrary<number> {
  return fc.oneof(fc.integer({ min: 0, max }), fc.constantFrom(0, 1, 511, 512, 513, 4095, 4096, 8192));
}

function pieces(size: number): Arbitrary<Piece[]> {
  const piece = fc
    .tuple(fc.integer({ min: 0, max: size - 1 }), fc.integer({ min: 1, max: 100_000 }), fc.nat(1000))
    .map(([offset, length, seed]) => ({ offset, length: Math.min(length, size - offset), seed }));
  return fc.array(piece, { maxLength: 4 });
}

function operations(size: number, writes: boolean): Arbitrary<Operation[]> {
  const offset = offsets(size);
  const length = lengths(Math.min(size + 600, MAX_REQUEST_BYTES));
  const anyLength = lengths(size + 600);
  const flag = fc.boolean();
  const seed = fc.nat(1000);
  const one = fc.oneof(
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('read' as const), offset, length }) },
    {
      weight: writes ? 6 : 0,
      arbitrary: fc.record({ kind: fc.constant('write' as const), offset, length, seed, durable: flag }),
    },
    {
      weight: writes ? 3 : 0,
      arbitrary: fc.record({
        kind: fc.constant('zero' as const),
        offset,
        length: anyLength,
        punch: flag,
        durable: flag,
      }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('extents' as const), offset, length: anyLength }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('flush' as const, 'reopen' as const) }) },
  );
  return fc.array(one, { minLength: 5, maxLength: 40, size: 'max' });
}

/** Loads fast-check. It is an optional peer dependency of fusetap, because only authors of drivers need it. */
function loadFastCheck(): typeof import('fast-check') {
  try {
    return createRequire(import.meta.url)('fast-check') as typeof import('fast-check');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'MODULE_NOT_FOUND') throw cause;
    throw new Error('fusetap/conformance needs the package fast-check: npm install --save-dev fast-check', { cause });
  }
}
