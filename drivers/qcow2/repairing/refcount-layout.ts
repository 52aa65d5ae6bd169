/**
 * Makes new refcounts for an image: a table and blocks in clusters that follow one another. They count themselves, too.
 *
 *      … clusters in use │ table │ block │ block │ …
 */
import type { Disk } from '../../disk.js';
import { FusetapError } from '../../errors.js';
import { mostRefcount, putRefcount } from '../checking/refcount-words.js';
import { MOST_REFERENCES } from '../checking/references.js';
import { type Header, MOST_REFCOUNT_TABLE_BYTES, refcountsPerBlock } from '../format/header.js';

/** What refers to the clusters of an image, but for its refcounts. */
export interface Usage {
  /** the first cluster behind all that are used */
  readonly end: number;
  /** How many references a cluster has. */
  countOf(cluster: number): number;
  /** The numbers of the ranges of `length` clusters in which clusters are used, in order. */
  ranges(length: number): Iterable<number>;
}

export type RefcountShape = Pick<Header, 'clusterBytes' | 'refcountOrder'>;

/** Where new refcounts are, in clusters. */
export interface RefcountLayout {
  readonly start: number;
  readonly tableClusters: number;
  /** the ranges that have a block, in order; the blocks lie behind the table in this order */
  readonly blocks: readonly number[];
  /** the first cluster behind them */
  readonly end: number;
}

/**
 * Plans refcounts that begin at a cluster. All that is used must end before it.
 * @throws FusetapError UNSUPPORTED if the image is too large for a refcount table
 */
export function layRefcounts(shape: RefcountShape, usage: Usage, start: number): RefcountLayout {
  const perBlock = refcountsPerBlock(shape);
  const first = Math.floor(start / perBlock);
  tableClustersFor(shape, first);
  const used = [...usage.ranges(perBlock)].filter((number) => number < first);
  for (let length = 1; ; ) {
    const last = Math.floor((start + length - 1) / perBlock);
    const tableClusters = tableClustersFor(shape, last);
    // the more clusters they take, the more blocks count these: it ends, because a block counts at least 64 clusters
    const needed = tableClusters + used.length + last - first + 1;
    if (needed > length) {
      length = needed;
      continue;
    }
    const own = Array.from({ length: last - first + 1 }, (_, i) => first + i);
    return { start, tableClusters, blocks: [...used, ...own], end: start + length };
  }
}

/** How many clusters a refcount table has whose last block has this number. */
function tableClustersFor({ clusterBytes }: RefcountShape, lastBlock: number): number {
  const clusters = Math.ceil(((lastBlock + 1) * 8) / clusterBytes);
  if (clusters * clusterBytes <= MOST_REFCOUNT_TABLE_BYTES) return clusters;
  throw new FusetapError('UNSUPPORTED', 'the image is too large: its refcount table would have more than 8 MiB', {
    hint: 'use larger clusters',
  });
}

/**
 * Writes planned refcounts. The image must have room for them.
 * @throws FusetapError UNSUPPORTED if a cluster has more references than a refcount can count
 */
export async function writeRefcounts(
  image: Disk,
  shape: RefcountShape,
  { usage, layout }: { readonly usage: Usage; readonly layout: RefcountLayout },
): Promise<void> {
  const { clusterBytes } = shape;
  const { start, tableClusters, blocks } = layout;
  const table = Buffer.alloc(tableClusters * clusterBytes);
  for (const [i, number] of blocks.entries()) {
    const place = (start + tableClusters + i) * clusterBytes;
    table.writeBigUInt64BE(BigInt(place), number * 8);
    await image.write(blockOf(shape, number, usage, layout), place);
  }
  await image.write(table, start * clusterBytes);
}

function blockOf(shape: RefcountShape, number: number, usage: Usage, { start, end }: RefcountLayout): Buffer {
  const block = Buffer.alloc(shape.clusterBytes);
  const perBlock = refcountsPerBlock(shape);
  const first = number * perBlock;
  const most = Math.min(mostRefcount(shape.refcountOrder), MOST_REFERENCES - 1);
  const count = Math.min(perBlock, end - first);
  for (let index = 0; index < count; index++) {
    const cluster = first + index;
    const value = cluster >= start ? 1 : usage.countOf(cluster);
    if (value > most) {
      throw new FusetapError(
        'UNSUPPORTED',
        `cluster ${cluster} has ${value} references, and a refcount counts ${most}`,
      );
    }
    if (value > 0) putRefcount(block, shape.refcountOrder, { index, value });
  }
  return block;
}
