/**
 * Checks a qcow2 image, as `qemu-img check` does: counts who uses each cluster, and compares that with the refcounts. It
 * shares no code with the reader and the writer of the driver, so that it can judge them.
 *
 *      count-references ──► what each refcount must be ┐
 *      stored-refcounts ──► what it is ────────────────┴─► compare: corruptions, leaks
 *
 * An image may be hostile: every table is read once, and memory depends on what the image has, not on what it claims.
 */
import type { Disk } from '../disk.js';
import type { CheckResult, ExamineOptions } from '../examining/examiner.js';
import { type Comparison, compareRefcounts } from './checking/compare.js';
import { type Count, countReferences } from './checking/count-references.js';
import { countRefcounts } from './checking/stored-refcounts.js';
import { type Header, isDirty, isMarkedCorrupt, readHeader } from './format/header.js';

export type { CheckResult };

/**
 * Checks an image without changing it.
 * @param image the file that has the format
 * @throws FusetapError if the header is not valid, or the image cannot be read; the signal's reason
 */
export async function checkImage(image: Disk, options: ExamineOptions = {}): Promise<CheckResult> {
  const header = await readHeader(image);
  return resultOf(header, await checkCounted(image, header, options));
}

/** What a check found, for a repair. */
export interface Checked {
  readonly count: Count;
  readonly comparison: Comparison;
}

/** Counts the references and compares the refcounts with them. */
export async function checkCounted(image: Disk, header: Header, options: ExamineOptions = {}): Promise<Checked> {
  const count = await countReferences(image, header, options);
  const places = await countRefcounts(count);
  return { count, comparison: await compareRefcounts(count, places) };
}

function resultOf(header: Header, { count, comparison }: Checked): CheckResult {
  const { findings, statistics, references } = count;
  return {
    corruptions: findings.lines,
    corruptionCount: findings.count,
    leaks: comparison.leaks,
    isDirty: isDirty(header),
    isMarkedCorrupt: isMarkedCorrupt(header),
    clusters: { total: Math.ceil(header.size / header.clusterBytes), ...statistics },
    beyondEnd: references.beyondEnd,
    imageEnd: comparison.imageEnd,
  };
}
