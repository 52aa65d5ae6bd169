/**
 * Makes qcow2 images of version 3.
 *
 *      header │ L1 table │ with preallocation: L2 tables │ data │ refcount table │ refcount blocks
 */
import type { Creator, NewImage } from '../creating/creator.js';
import { allocateFile, newFileDisk } from '../creating/new-file.js';
import type { Disk } from '../disk.js';
import { headerBytes } from './creating/header-bytes.js';
import { type NewShape, shapeOf } from './creating/new-shape.js';
import { COPIED, putEntry } from './format/entries.js';
import { l2Entries, l2EntryBytes } from './format/header.js';
import { layRefcounts, type RefcountLayout, type Usage, writeRefcounts } from './repairing/refcount-layout.js';

/** how much of the L2 tables is written at one time */
const PART_BYTES = 1 << 20;

const creator = {
  check(image) {
    const plan = planImage(image);
    headerBytes(plan.shape, image, tablesOf(plan));
    return plan.shape.size;
  },
  async write(fd, image) {
    const plan = planImage(image);
    const { shape, layout, usage } = plan;
    const bytes = layout.end * shape.clusterBytes;
    const file = await newFileDisk(fd, bytes);
    if (shape.preallocation === 'falloc') await allocateFile(fd, bytes);
    await file.write(headerBytes(shape, image, tablesOf(plan)), 0);
    await writeTables(file, plan);
    await writeRefcounts(file, shape, { usage, layout });
  },
} satisfies Creator;

export default creator;

/** A new image; places are clusters. */
interface Plan {
  readonly shape: NewShape;
  /** the first L2 table, behind the L1 table */
  readonly l2Start: number;
  readonly l2Count: number;
  readonly dataStart: number;
  /** guest clusters that have a place */
  readonly dataCount: number;
  readonly usage: Usage;
  readonly layout: RefcountLayout;
}

const L1_START = 1;

function planImage(image: NewImage): Plan {
  const shape = shapeOf(image);
  const { clusterBytes, l1Entries, size } = shape;
  const isAllocated = shape.preallocation !== 'off';
  const l2Start = L1_START + Math.ceil((l1Entries * 8) / clusterBytes);
  const l2Count = isAllocated ? l1Entries : 0;
  const dataStart = l2Start + l2Count;
  const dataCount = isAllocated ? Math.ceil(size / clusterBytes) : 0;
  const usage = usedOnce(dataStart + dataCount);
  const layout = layRefcounts(shape, usage, usage.end);
  return { shape, l2Start, l2Count, dataStart, dataCount, usage, layout };
}

/** All clusters up to an end are used once. */
function usedOnce(end: number): Usage {
  return {
    end,
    countOf: () => 1,
    *ranges(length) {
      for (let number = 0; number * length < end; number++) yield number;
    },
  };
}

function tablesOf({ shape: { clusterBytes }, layout }: Plan) {
  return {
    l1Place: L1_START * clusterBytes,
    refcountPlace: layout.start * clusterBytes,
    refcountClusters: layout.tableClusters,
  };
}

/** Writes the L1 table and the L2 tables of an image whose clusters all have a place. */
async function writeTables(file: Disk, { shape, l2Start, l2Count, dataStart, dataCount }: Plan): Promise<void> {
  if (l2Count === 0) return;
  const { clusterBytes } = shape;
  const l1 = Buffer.alloc(l2Count * 8);
  for (let i = 0; i < l2Count; i++) putEntry(l1, i * 8, (l2Start + i) * clusterBytes, COPIED);
  await file.write(l1, L1_START * clusterBytes);
  const entryBytes = l2EntryBytes(shape);
  // the tables follow one another, so their entries do
  const perPart = Math.max(PART_BYTES / clusterBytes, 1) * l2Entries(shape);
  for (let first = 0; first < dataCount; first += perPart) {
    const part = Buffer.alloc(Math.min(perPart, dataCount - first) * entryBytes);
    // of extended entries, the second number says that no part of the cluster is data yet
    for (let i = 0; i * entryBytes < part.length; i++) {
      putEntry(part, i * entryBytes, (dataStart + first + i) * clusterBytes, COPIED);
    }
    await file.write(part, l2Start * clusterBytes + first * entryBytes);
  }
}
