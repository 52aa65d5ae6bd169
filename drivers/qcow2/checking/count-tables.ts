/**
 * Counts L1 tables, the L2 tables that they name, and what these name. An L2 table is read once, whoever names it: a table
 * that several L1 tables share counts as often as they name it. So no loop is possible.
 */
import type { ClusterStatistics } from '../../examining/examiner.js';
import { readUpTo } from '../../formats/read.js';
import { COPIED, placeOf } from '../format/entries.js';
import { countEntries } from './count-entries.js';
import type { Counting } from './counting.js';
import { countOf, IS_ACTIVE, KIND, SAYS_ONE, SAYS_SHARED } from './references.js';

const RESERVED_HIGH = 0x7f00_0000;
const RESERVED_LOW = 0x1ff;
/** how much of an L1 table is read at one time */
const PART_BYTES = 64 << 10;

export interface L1Region {
  readonly offset: number;
  readonly entries: number;
  readonly isActive: boolean;
  /** for findings, as `the L1 table` */
  readonly what: string;
}

/** Counts the trees of tables. @param regions the active one is the first */
export async function countTables(counting: Counting, regions: readonly L1Region[]): Promise<ClusterStatistics> {
  const tables: number[] = [];
  for (const region of regions) {
    if (counting.references.own(region.offset, region.entries * 8, region.what)) {
      await countL1(counting, region, tables);
    }
  }
  const statistics = { allocated: 0, fragmented: 0, compressed: 0 };
  const { clusterBytes } = counting.header;
  for (const [done, cluster] of tables.entries()) {
    counting.step(done / tables.length);
    const place = cluster * clusterBytes;
    const bytes = Buffer.alloc(clusterBytes);
    (await readUpTo(counting.image, place, clusterBytes)).copy(bytes);
    const word = counting.references.words.get(cluster);
    const isActive = (word & IS_ACTIVE) !== 0;
    countEntries(counting, { place, bytes, isActive, weight: countOf(word) }, statistics);
  }
  return statistics;
}

/** Counts the entries of an L1 table. @param tables gets the clusters of L2 tables that nobody named before */
async function countL1(counting: Counting, region: L1Region, tables: number[]): Promise<void> {
  for (let at = 0; at < region.entries * 8; at += PART_BYTES) {
    counting.step(0);
    const part = await readUpTo(counting.image, region.offset + at, Math.min(PART_BYTES, region.entries * 8 - at));
    for (let i = 0; i + 8 <= part.length; i += 8) {
      const [high, low] = [part.readUInt32BE(i), part.readUInt32BE(i + 4)];
      if ((high | low) !== 0) countL1Entry(counting, region, { high, low, index: (at + i) / 8 }, tables);
    }
  }
}

function countL1Entry(
  { references, findings, header: { clusterBytes } }: Counting,
  { isActive, what }: L1Region,
  { high, low, index }: { readonly high: number; readonly low: number; readonly index: number },
  tables: number[],
): void {
  const describe = (): string => `entry ${index} of ${what}`;
  const find = (fault: string): void => findings.add(`${describe()} ${fault}`);
  const place = placeOf(high, low);
  if ((high & RESERVED_HIGH) !== 0 || (low & RESERVED_LOW) !== 0) find('has reserved bits');
  if (place === 0) return find('names no L2 table, but is not 0');
  if (place % clusterBytes !== 0) return find(`names byte ${place}, which is not the begin of a cluster`);
  const cluster = place / clusterBytes;
  if (cluster >= references.imageClusters)
    return find(`names an L2 table at byte ${place}, behind the end of the image`);
  const isNew = (references.words.get(cluster) & KIND.table) === 0;
  const says = (high & COPIED) !== 0 ? SAYS_ONE : SAYS_SHARED;
  const isTable = references.add(cluster, KIND.table | (isActive ? IS_ACTIVE | says : 0), 1, describe);
  if (isTable && isNew) tables.push(cluster);
}
