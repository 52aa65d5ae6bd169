/** Disks of several runs: the suite over runs of odd sizes in one file and in several, in any order. */
import { closeSync, ftruncateSync, writeSync } from 'node:fs';
import t from 'tap';
import type { RawDisk, Segment } from '../../drivers/driver.js';
import { windowOf } from '../../drivers/segments/one-segment.js';
import { areWhole, cutSegments, segmentsDisk } from '../../drivers/segments/segments.js';
import { memfdCreate } from '../../system/libc.js';
import { patternBytes } from '../conformance/pattern.js';
import { type DiskFactory, diskSuite } from '../conformance/suite.js';

/** the ends of the runs of a disk, as parts of its size, and the file of each run */
const ENDS = [0.13, 0.1301, 0.5, 0.77, 1];
const FILES = [1, 0, 1, 2, 0];

/** Runs whose places in their files are not in the order of the disk. */
function segmentsOf(size: number, fds: readonly number[], readOnly: boolean): Segment[] {
  const used = fds.map(() => 513);
  const segments: Segment[] = [];
  let offset = 0;
  for (const [i, part] of ENDS.entries()) {
    const end = part === 1 ? size : Math.floor(size * part);
    if (end <= offset) continue;
    const file = FILES[i] as number;
    const start = used[file] as number;
    used[file] = start + (end - offset) + 1000;
    const fd = fds[file] as number;
    segments.push({ offset, fd, start, size: end - offset, kind: 'file', readOnly, durable: false });
    offset = end;
  }
  return segments;
}

const factory: DiskFactory = async ({ size, pieces, readOnly }) => {
  const fds = [0, 1, 2].map(() => memfdCreate('segments'));
  const segments = segmentsOf(size, fds, readOnly);
  for (const fd of fds) ftruncateSync(fd, size + 10_000);
  for (const { offset, length, seed } of pieces) {
    for (const part of cutSegments(segments, offset, length)) {
      const bytes = patternBytes(offset + part.offset, part.size, seed);
      writeSync(part.fd, bytes, 0, part.size, part.start);
    }
  }
  const reopen = async (): Promise<RawDisk> => segmentsDisk(segments, async () => {});
  const dispose = async (): Promise<void> => {
    for (const fd of fds) closeSync(fd);
  };
  return { raw: await reopen(), reopen, dispose };
};

diskSuite({ name: 'segments', test: t, factory, abilities: { maxSizeBytes: 2 ** 42, holes: false, shrink: false } });

const segment = (offset: number, start: number, size: number, fd = 5): Segment => {
  return { offset, fd, start, size, kind: 'file', readOnly: false, durable: false };
};

t.test('a cut keeps the bytes where they are', async (t) => {
  const whole = [segment(0, 100, 10), segment(10, 0, 5, 6), segment(15, 50, 20)];
  t.same(cutSegments(whole, 0, 35), whole);
  t.same(cutSegments(whole, 4, 8), [segment(0, 104, 6), segment(6, 0, 2, 6)]);
  t.same(cutSegments(whole, 10, 5), [segment(0, 0, 5, 6)]);
  t.same(cutSegments(whole, 34, 1), [segment(0, 69, 1)]);
});

t.test('gaps and overlaps are refused', async (t) => {
  t.equal(areWhole([segment(0, 0, 10), segment(10, 7, 1)], 11), true);
  for (const segments of [
    [],
    [segment(1, 0, 10)],
    [segment(0, 0, 10), segment(11, 0, 1)],
    [segment(0, 0, 10), segment(9, 0, 1)],
    [segment(0, 0, 0)],
  ]) {
    t.equal(areWhole(segments, 11), false);
  }
  t.throws(() => segmentsDisk([segment(0, 0, 10), segment(11, 0, 1)], async () => {}), RangeError);
});

t.test('the window of a disk of one segment is the same object each time', async (t) => {
  const segments = [segment(0, 100, 10)];
  t.equal(windowOf({ segments }), windowOf({ segments }));
  t.same(windowOf({ segments }), { fd: 5, start: 100, size: 10, kind: 'file', readOnly: false, durable: false });
  t.equal(windowOf({ segments: [...segments, segment(10, 0, 5)] }), undefined);
  t.equal(windowOf({}), undefined);
});
