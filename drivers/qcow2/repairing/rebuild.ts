/**
 * Replaces the refcounts of an image by new ones, which are made from what refers to its clusters.
 *
 *      [table, blocks][bit 63 of entries] ──► durable ──► header names the table ──► durable
 */

import type { Disk } from '../../disk.js';
import { FusetapError } from '../../errors.js';
import type { ExamineOptions } from '../../examining/examiner.js';
import { readUpTo } from '../../formats/read.js';
import { type ClusterWords, PAGE_CLUSTERS } from '../checking/cluster-words.js';
import { countReferences } from '../checking/count-references.js';
import { countOf, type References } from '../checking/references.js';
import { blockNumbers } from '../checking/stored-refcounts.js';
import { HEADER_AT, type Header } from '../format/header.js';
import { correctCopied } from './copied-flags.js';
import { refuse } from './damaged.js';
import { layRefcounts, type Usage, writeRefcounts } from './refcount-layout.js';

/**
 * Counts the references of an image, and replaces its refcounts. Trusts nothing of the old ones.
 *
 * The image must be marked as dirty. It is durable in the end, and the clusters of the old refcounts are free.
 * @throws FusetapError DENIED if two references use the same cluster and nothing explains that
 */
export async function rebuildRefcounts(image: Disk, header: Header, options: ExamineOptions = {}): Promise<void> {
  const count = await countReferences(image, header, options);
  refuse(count.findings);
  refuse(count.doubts);
  const usage = new CountedUsage(count.references);
  const layout = layRefcounts(header, usage, Math.max(usage.end, await endOfRefcounts(image, header)));
  const { clusterBytes } = header;
  await makeRoom(image, layout.end * clusterBytes);
  await writeRefcounts(image, header, { usage, layout });
  await correctCopied({ image, header, signal: options.signal, countOf: (cluster) => usage.countOf(cluster) });
  await image.flush();
  const field = Buffer.alloc(12);
  field.writeBigUInt64BE(BigInt(layout.start * clusterBytes));
  field.writeUInt32BE(layout.tableClusters, 8);
  await image.write(field, HEADER_AT.refcountTable);
  await image.flush();
}

/** Makes the image at least `size` bytes. @throws FusetapError NO_SPACE */
export async function makeRoom(image: Disk, size: number): Promise<void> {
  if (size <= image.size) return;
  if (image.growth !== undefined) return await image.growth.grow(size);
  throw new FusetapError('NO_SPACE', 'the image has no room for new refcounts, and cannot become larger', {
    hint: 'make its device larger, or copy the image to a file',
  });
}

/** What was counted, as the usage that new refcounts must count. */
class CountedUsage implements Usage {
  readonly end: number;
  readonly #words: ClusterWords;

  constructor({ words, end }: References) {
    this.#words = words;
    this.end = end;
  }

  countOf(cluster: number): number {
    return countOf(this.#words.get(cluster));
  }

  *ranges(length: number): Generator<number> {
    for (const number of blockNumbers(this.#words.pages(), new Map(), length)) {
      if (this.#isUsed(number * length, length)) yield number;
    }
  }

  #isUsed(first: number, length: number): boolean {
    // the range has whole pages, and a page is listed only if a word of it is set
    if (length >= PAGE_CLUSTERS) return true;
    for (let cluster = first; cluster < first + length; cluster++) if (this.#words.get(cluster) !== 0) return true;
    return false;
  }
}

/** The end of the old refcounts, as far as they are in the image: they stay until the header names the new ones. */
async function endOfRefcounts(image: Disk, { refcountTable, clusterBytes }: Header): Promise<number> {
  const { offset, clusters } = refcountTable;
  const table = await readUpTo(image, offset, clusters * clusterBytes);
  let end = offset / clusterBytes + clusters;
  for (let at = 0; at + 8 <= table.length; at += 8) {
    const place = Number(table.readBigUInt64BE(at));
    if (place % clusterBytes === 0 && place < image.size) end = Math.max(end, place / clusterBytes + 1);
  }
  return end;
}
