/**
 * Repairs the refcounts of an image that was not closed cleanly, and of one with leaks.
 *
 *      dirty ──► count the references ──► they contradict each other: refuse
 *                                     ├─► no refcount is too low: lower those that are too large, in place
 *                                     └─► else: make new refcounts behind all that is used
 *
 *      [table, blocks][bit 63 of entries] ──► durable ──► header names the table, durable ──► not dirty, durable
 *
 * The image stays dirty until all is right. So if this process is killed at any call, or the power fails, the next repair
 * counts again, and trusts nothing of what this one has written.
 */
import type { Disk } from '../disk.js';
import type { RepairContext } from '../driver.js';
import type { ExamineOptions, Leaks } from '../examining/examiner.js';
import { requireDisk } from '../image.js';
import { type Comparison, compareRefcounts } from './checking/compare.js';
import { type Count, countReferences } from './checking/count-references.js';
import { countOf } from './checking/references.js';
import { type BlockPlaces, countRefcounts } from './checking/stored-refcounts.js';
import { HEADER_AT, type Header, INCOMPATIBLE, isDirty, isMarkedCorrupt, readHeader } from './format/header.js';
import { correctCopied } from './repairing/copied-flags.js';
import { damaged, refuse } from './repairing/damaged.js';
import { lowerRefcounts } from './repairing/leaks.js';
import { makeRoom, rebuildRefcounts } from './repairing/rebuild.js';

/** how much a server may have allocated at the end of an image before the data for it came */
const MOST_ALLOCATED_BYTES = 64 << 20;

/**
 * Repairs an image that is marked as dirty. Another one, and one that may not be written, is left as it is.
 * @returns remarks for the user
 * @throws FusetapError DENIED if the image contradicts itself; NO_SPACE; the signal's reason
 */
export async function repairImage(context: Pick<RepairContext, 'disks' | 'signal' | 'progress'>): Promise<string[]> {
  const image = requireDisk(context, 'qcow2');
  const header = await readHeader(image);
  if (!isDirty(header) || header.version === 2 || isMarkedCorrupt(header)) return [];
  const how = await repairDirty(await checkParts(image, header, context), context);
  return [`the image was not closed cleanly: its refcounts were counted, ${how}`];
}

/** What `repairLeaks` did. */
export interface LeakRepair {
  readonly leaks: Leaks;
  /** entries that did not say that a refcount is 1, and say it now */
  readonly marked: number;
}

/**
 * Frees clusters that nobody uses. A dirty image is repaired as a whole.
 * @throws FusetapError DENIED if anything else is wrong with the image: what seems to be a leak may then be data that a
 *   broken table does not find
 */
export async function repairLeaks(image: Disk, options: ExamineOptions = {}): Promise<LeakRepair> {
  const header = await readHeader(image);
  if (isMarkedCorrupt(header)) throw damaged('it is marked as corrupt');
  const checked = await checkParts(image, header, options);
  const { count, comparison, isInPlace } = checked;
  if (isDirty(header)) await repairDirty(checked, options);
  else {
    if (!isInPlace) refuse(count.findings);
    await repairInPlace(checked, options);
    await image.flush();
  }
  return { leaks: comparison.leaks, marked: comparison.unmarked };
}

/** @returns what was done */
async function repairDirty(checked: CheckedParts, options: ExamineOptions): Promise<string> {
  const { image, header } = checked.count;
  const end = endOf(checked.count);
  let how = 'and are right';
  if (!checked.isInPlace) {
    await rebuildRefcounts(image, header, options);
    how = 'and made anew';
  } else {
    await makeRoom(image, end);
    if (await repairInPlace(checked, options)) how = 'and corrected';
  }
  await image.flush();
  const bits = Buffer.alloc(8);
  bits.writeBigUInt64BE(header.incompatible & ~INCOMPATIBLE.dirty);
  await image.write(bits, HEADER_AT.features);
  await image.flush();
  return how;
}

interface CheckedParts {
  readonly count: Count;
  readonly places: BlockPlaces;
  readonly comparison: Comparison;
  /** no refcount is too low, and the refcount table is sound */
  readonly isInPlace: boolean;
}

/** @throws FusetapError DENIED if the references contradict each other, or name what is not there */
async function checkParts(image: Disk, header: Header, options: ExamineOptions): Promise<CheckedParts> {
  const count = await countReferences(image, header, options);
  refuse(count.findings);
  const places = await countRefcounts(count);
  const comparison = await compareRefcounts(count, places);
  return { count, places, comparison, isInPlace: count.findings.count === comparison.unmarked };
}

/** @returns whether anything was wrong */
async function repairInPlace(
  { count, places, comparison }: CheckedParts,
  { signal }: ExamineOptions,
): Promise<boolean> {
  const { image, header, references } = count;
  const lowered = await lowerRefcounts(count, places);
  if (comparison.wrongMarks === 0) return lowered > 0;
  // a bit that says 1 must not be durable before the refcount is
  await image.flush();
  await correctCopied({ image, header, signal, countOf: (cluster) => countOf(references.words.get(cluster)) });
  return true;
}

/**
 * The size that the image needs: after a power cut, its size can be older than its tables.
 * @throws FusetapError DENIED if that is more than a power cut can take away
 */
function endOf({ image, references, header: { clusterBytes, size } }: Count): number {
  const end = references.end * clusterBytes;
  // the last cluster of a file may be cut
  if (end <= Math.ceil(image.size / clusterBytes) * clusterBytes) return image.size;
  if (end <= image.size + 2 * size + MOST_ALLOCATED_BYTES) return end;
  throw damaged(`it names data at byte ${end}, far behind its end`);
}
