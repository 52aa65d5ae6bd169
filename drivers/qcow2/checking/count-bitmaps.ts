/**
 * Counts the bitmaps of an image, if they are valid: a directory, a table for each bitmap, and clusters of bits.
 *
 *      directory   0 table (offset 8, entries 4)   18 length of the name, 2   20 length of more data, 4
 *                  24 more data, name; the next entry begins at a multiple of 8
 *      table       bits 9 to 55: the place of a cluster of bits; 0: all its bits are as bit 0 says
 */
import { readUpTo } from '../../formats/read.js';
import { placeOf } from '../format/entries.js';
import { AUTOCLEAR } from '../format/header.js';
import type { Counting } from './counting.js';
import { KIND } from './references.js';
import { RegionReader } from './region-reader.js';

const ENTRY_BYTES = 24;
const MOST_DIRECTORY_BYTES = 64 << 20;
const MOST_TABLE_ENTRIES = 0x800_0000;
const RESERVED_HIGH = 0xff00_0000;
const RESERVED_LOW = 0x1fe;
const PART_BYTES = 64 << 10;

export async function countBitmaps(counting: Counting): Promise<void> {
  const { image, header, findings, references } = counting;
  const { bitmaps } = header.extensions;
  // if the bit is not set, a program has written that does not maintain them: nobody uses them any more
  if (bitmaps === null || (header.autoclear & AUTOCLEAR.bitmaps) === 0n) return;
  const [offset, bytes] = [Number(bitmaps.directoryOffset), Number(bitmaps.directoryBytes)];
  const what = 'the directory of bitmaps';
  if (!Number.isSafeInteger(offset) || bytes > MOST_DIRECTORY_BYTES) return findings.add(`${what} is too large`);
  if (!references.own(offset, bytes, what)) return;
  const reader = new RegionReader(image, offset, bytes);
  for (let index = 0; index < bitmaps.count; index++) {
    counting.step(0);
    const entry = await reader.next(ENTRY_BYTES);
    const rest = entry === null ? 0 : entry.readUInt16BE(18) + entry.readUInt32BE(20);
    if (entry === null || !reader.skip(rest + ((8 - (rest % 8)) % 8))) {
      return findings.add(`${what} ends within entry ${index}`);
    }
    const table = { offset: Number(entry.readBigUInt64BE(0)), entries: entry.readUInt32BE(8) };
    if (!Number.isSafeInteger(table.offset) || table.entries > MOST_TABLE_ENTRIES) {
      findings.add(`the table of bitmap ${index} is not valid`);
    } else await countTable(counting, table, `the table of bitmap ${index}`);
  }
}

async function countTable(
  counting: Counting,
  { offset, entries }: { readonly offset: number; readonly entries: number },
  what: string,
): Promise<void> {
  const { image, references } = counting;
  if (!references.own(offset, entries * 8, what)) return;
  for (let at = 0; at < entries * 8; at += PART_BYTES) {
    counting.step(0);
    const part = await readUpTo(image, offset + at, Math.min(PART_BYTES, entries * 8 - at));
    for (let i = 0; i + 8 <= part.length; i += 8) {
      countBits(counting, [part.readUInt32BE(i), part.readUInt32BE(i + 4)], () => `entry ${(at + i) / 8} of ${what}`);
    }
  }
}

function countBits(
  { references, findings, header: { clusterBytes } }: Counting,
  [high, low]: readonly [high: number, low: number],
  describe: () => string,
): void {
  const place = placeOf(high, low);
  const hasFlag = (low & 1) !== 0;
  if ((high & RESERVED_HIGH) !== 0 || (low & RESERVED_LOW) !== 0 || (place !== 0 && hasFlag)) {
    return findings.add(`${describe()} has reserved bits`);
  }
  if (place === 0) return;
  const cluster = place / clusterBytes;
  if (!Number.isInteger(cluster) || cluster >= references.imageClusters) {
    return findings.add(`${describe()} names byte ${place}, which is no cluster of the image`);
  }
  references.add(cluster, KIND.own, 1, describe);
}
