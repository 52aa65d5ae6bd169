/**
 * Reads the refcounts that an image has, together with the clusters that they count.
 *
 *      refcount table ──► block ──► parts of at most a page of clusters ──► refcounts
 *
 * Parts in which all refcounts are 0 and to which nothing refers are left out.
 */
import { readUpTo } from '../../formats/read.js';
import { refcountsPerBlock } from '../format/header.js';
import { PAGE_CLUSTERS } from './cluster-words.js';
import type { Counting } from './counting.js';
import { KIND } from './references.js';

const RESERVED_LOW = 0x1ff;

/** A refcount block that was read. */
export interface Block {
  /** its first byte in the image */
  readonly place: number;
  readonly bytes: Buffer;
}

/** Refcounts of clusters that follow one another. */
export interface StoredPart {
  readonly first: number;
  readonly count: number;
  /** null if there is none: all refcounts are 0 */
  readonly block: Block | null;
  /** the first of the refcounts in the block */
  readonly index: number;
}

/** Where the blocks are, by their number. */
export type BlockPlaces = ReadonlyMap<number, number>;

/** Counts the refcount table and its blocks. Entries that are not valid are findings, and are left out. */
export async function countRefcounts(counting: Counting): Promise<BlockPlaces> {
  const { image, header, references, findings } = counting;
  const { offset, clusters } = header.refcountTable;
  const places = new Map<number, number>();
  if (!references.own(offset, clusters * header.clusterBytes, 'the refcount table')) return places;
  const table = await readUpTo(image, offset, clusters * header.clusterBytes);
  for (let at = 0; at + 8 <= table.length; at += 8) {
    const [high, low] = [table.readUInt32BE(at), table.readUInt32BE(at + 4)];
    if ((high | low) === 0) continue;
    counting.step(1);
    const describe = (): string => `entry ${at / 8} of the refcount table`;
    const place = high * 2 ** 32 + (low - (low & RESERVED_LOW));
    const cluster = place / header.clusterBytes;
    if ((low & RESERVED_LOW) !== 0) findings.add(`${describe()} has reserved bits`);
    else if (!Number.isInteger(cluster))
      findings.add(`${describe()} names byte ${place}, which is not the begin of a cluster`);
    else if (cluster >= references.imageClusters) {
      findings.add(`${describe()} names a block at byte ${place}, behind the end of the image`);
    } else if (references.add(cluster, KIND.own, 1, describe)) places.set(at / 8, place);
  }
  return places;
}

/** All parts in which a refcount is not 0, or to whose clusters something refers; in order. */
export async function* storedParts(counting: Counting, places: BlockPlaces): AsyncGenerator<StoredPart> {
  const { header, references, image } = counting;
  const perBlock = refcountsPerBlock(header);
  const count = Math.min(perBlock, PAGE_CLUSTERS);
  const partBytes = header.clusterBytes / (perBlock / count);
  const pages = references.words.pages();
  for (const number of blockNumbers(pages, places, perBlock)) {
    counting.step(1);
    const start = number * perBlock;
    const place = places.get(number);
    if (place === undefined) {
      for (const first of pagesIn(pages, start, start + perBlock))
        yield { first, count, block: null, index: first - start };
      continue;
    }
    const block = { place, bytes: Buffer.alloc(header.clusterBytes) };
    (await readUpTo(image, place, header.clusterBytes)).copy(block.bytes);
    for (let index = 0; index < perBlock; index += count) {
      const first = start + index;
      const at = (index / count) * partBytes;
      const isNeeded =
        references.words.hasPage(Math.floor(first / PAGE_CLUSTERS)) || hasBytes(block.bytes, at, partBytes);
      if (isNeeded) yield { first, count, block, index };
    }
  }
}

/** The blocks that exist, and those that would count the clusters of pages; in order. */
export function* blockNumbers(pages: Float64Array, places: BlockPlaces, perBlock: number): Generator<number> {
  const perPage = Math.max(1, PAGE_CLUSTERS / perBlock);
  const numbers = new Float64Array(places.size + pages.length * perPage);
  let at = 0;
  for (const number of places.keys()) numbers[at++] = number;
  for (const page of pages) {
    const first = Math.floor((page * PAGE_CLUSTERS) / perBlock);
    for (let i = 0; i < perPage; i++) numbers[at++] = first + i;
  }
  numbers.sort();
  let last = -1;
  for (const number of numbers) {
    if (number !== last) yield number;
    last = number;
  }
}

/** The first clusters of the pages between two clusters; if all of these are in one page, the first of them. */
function* pagesIn(pages: Float64Array, start: number, end: number): Generator<number> {
  let [low, high] = [0, pages.length];
  const page = Math.floor(start / PAGE_CLUSTERS);
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((pages[middle] as number) < page) low = middle + 1;
    else high = middle;
  }
  for (let i = low; i < pages.length; i++) {
    const first = (pages[i] as number) * PAGE_CLUSTERS;
    if (first >= end) break;
    yield Math.max(first, start);
  }
}

function hasBytes(bytes: Buffer, at: number, length: number): boolean {
  for (let i = at; i < at + length; i++) if (bytes[i] !== 0) return true;
  return false;
}
