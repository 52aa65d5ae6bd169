/** offset and sizelimit: a run of a larger disk is a disk, and nothing around it is ever touched. */
import assert from 'node:assert/strict';
import t from 'tap';
import aio from '../../../drivers/aio/index.js';
import { frontDisk } from '../../../drivers/disk.js';
import type { RawDisk } from '../../../drivers/driver.js';
import type { FilterSpec } from '../../../drivers/filters/filter.js';
import { makeFilter } from '../../../drivers/filters/index.js';
import ram from '../../../drivers/ram/index.js';
import { PAGE_BYTES } from '../../../system/page.js';
import { bufferDisk } from '../../conformance/buffer-disk.js';
import { driverFactory } from '../../conformance/driver-factory.js';
import { type Piece, patternBytes } from '../../conformance/pattern.js';
import { type DiskFactory, diskSuite } from '../../conformance/suite.js';
import { bySyncCalls } from '../../conformance/sync-calls.js';
import { RAM_ABILITIES, withoutSegments } from './over.js';

const TAIL = 3 * PAGE_BYTES;

/** The suite's disk is in the middle of a larger one, whose other bytes are looked at in the end. */
function inTheMiddle(inner: DiskFactory, start: number, wrap: (raw: RawDisk) => RawDisk = (raw) => raw): DiskFactory {
  return async (request) => {
    const around: Piece[] = [
      { offset: 0, length: start, seed: 77 },
      { offset: start + request.size, length: TAIL, seed: 77 },
    ];
    const pieces = request.pieces.map((piece) => ({ ...piece, offset: piece.offset + start, place: piece.offset }));
    const made = await inner({ ...request, size: start + request.size + TAIL, pieces: [...pieces, ...around] });
    const specs = [
      { name: 'offset', value: String(start) },
      { name: 'sizelimit', value: String(request.size) },
    ];
    const { reopen, shrink } = made;
    return {
      raw: wrap(through(made.raw, specs)),
      ...(reopen && { reopen: async () => wrap(through(await reopen(), specs)) }),
      ...(shrink && { shrink: (size: number) => shrink(size === request.size ? start + size + TAIL : start + size) }),
      async dispose() {
        const whole = await made.reopen?.();
        if (whole && !shrink) await checkAround(whole, around);
        await whole?.close();
        await made.dispose();
      },
    };
  };
}

function through(raw: RawDisk, specs: readonly FilterSpec[]): RawDisk {
  return specs.map(makeFilter).reduce((next, filter) => filter(next), raw);
}

async function checkAround(whole: RawDisk, around: readonly Piece[]): Promise<void> {
  for (const { offset, length, seed } of around) {
    const bytes = Buffer.alloc(length);
    await whole.read(bytes, offset);
    assert.ok(bytes.equals(patternBytes(offset, length, seed)), `bytes around the disk changed, behind ${offset}`);
  }
}

const overRam = driverFactory(ram);
const abilities = RAM_ABILITIES;
diskSuite({ name: 'window', test: t, factory: inTheMiddle(overRam, 3 * PAGE_BYTES), abilities });
diskSuite({
  name: 'window in a thread',
  test: t,
  factory: inTheMiddle(overRam, 3 * PAGE_BYTES, bySyncCalls),
  abilities,
});
// runs of whole pages are holes of the image no longer where the disk begins inside a page
const unaligned = { ...abilities, holes: false };
diskSuite({ name: 'window at an odd byte', test: t, factory: inTheMiddle(overRam, 4097), abilities: unaligned });
diskSuite({
  name: 'arithmetic',
  test: t,
  factory: inTheMiddle(driverFactory(ram, { wrap: withoutSegments }), 3 * PAGE_BYTES),
  abilities,
});
diskSuite({
  name: 'over a file',
  test: t,
  factory: inTheMiddle(driverFactory(aio), 3 * PAGE_BYTES),
  abilities: { ...abilities, shrink: true },
  runs: 3,
});

t.test('a window stays a window', async (t) => {
  const made = await overRam({ size: 10_000, pieces: [], readOnly: false });
  const disk = frontDisk(
    through(made.raw, [
      { name: 'offset', value: '1K' },
      { name: 'sizelimit', value: '2KB' },
    ]),
    {
      readOnly: false,
    },
  );
  t.match(disk.segments?.[0], { start: 1024, size: 2000, kind: 'memory', readOnly: false });
  await disk.close();
  await made.dispose();
});

t.test('what the disk does not have is refused, with both figures', async (t) => {
  const raw = bufferDisk(Buffer.alloc(10_000));
  const cases: [FilterSpec[], RegExp][] = [
    [[{ name: 'offset', value: '10000' }], /offset 10000: .* 10000 bytes/],
    [[{ name: 'offset', value: '1M' }], /offset 1048576: .* 10000 bytes/],
    [[{ name: 'sizelimit', value: '10001' }], /sizelimit 10001: .* 10000 bytes/],
    [[{ name: 'sizelimit', value: '0' }], /sizelimit 0/],
    [
      [
        { name: 'offset', value: '1' },
        { name: 'sizelimit', value: '10000' },
      ],
      /sizelimit 10000: .* 9999 bytes/,
    ],
    [[{ name: 'offset', value: '-1' }], /'-1' is not a size/],
    [[{ name: 'offset', value: '' }], /'' is not a size/],
  ];
  for (const [specs, message] of cases) {
    t.throws(() => through(raw, specs), { code: 'USAGE', message }, JSON.stringify(specs));
  }
  t.equal(through(raw, [{ name: 'offset', value: '9999' }]).size, 1);
  t.equal(through(raw, [{ name: 'sizelimit', value: '10000' }]).size, 10_000);
});
