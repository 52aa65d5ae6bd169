/**
 * Reads the snapshot table: where the L1 table of each snapshot is.
 *
 *      0 L1 (offset 8, entries 4)   12 length of the id, 2   14 length of the name, 2   32 size of the VM state, 4
 *      36 length of more data, 4    40 more data, id, name; the next entry begins at a multiple of 8
 */
import { SNAPSHOT_ENTRY_BYTES } from '../format/header.js';
import type { L1Region } from './count-tables.js';
import type { Counting } from './counting.js';
import { RegionReader } from './region-reader.js';

const MOST_TABLE_BYTES = 64 << 20;
const MOST_MORE_BYTES = 1024;
/** the size of the VM state in 8 bytes, and the size of the disk; version 3 requires both */
const LEAST_MORE_BYTES = 16;
const MOST_L1_ENTRIES = (32 << 20) / 8;

/** Counts the snapshot table. @returns the L1 tables of the snapshots, as far as the table can be read */
export async function countSnapshots(counting: Counting): Promise<L1Region[]> {
  const { image, header, findings, references } = counting;
  const { offset, count } = header.snapshots;
  if (count === 0) return [];
  const reader = new RegionReader(image, offset, MOST_TABLE_BYTES);
  const regions: L1Region[] = [];
  for (let index = 0; index < count; index++) {
    counting.step(0);
    // the last entry needs no padding: the image may end behind it
    reader.skip((8 - (reader.doneBytes % 8)) % 8);
    const entry = await reader.next(SNAPSHOT_ENTRY_BYTES);
    const rest = entry === null ? 0 : entry.readUInt16BE(12) + entry.readUInt16BE(14) + entry.readUInt32BE(36);
    if (entry === null || !reader.skip(rest)) {
      findings.add(`the snapshot table at byte ${offset} ends within entry ${index}`);
      break;
    }
    const what = `the L1 table of snapshot ${index}`;
    const more = entry.readUInt32BE(36);
    if (more > MOST_MORE_BYTES) findings.add(`entry ${index} of the snapshot table has ${more} bytes of more data`);
    if (header.version === 3 && more < LEAST_MORE_BYTES)
      findings.add(`entry ${index} of the snapshot table is incomplete`);
    const entries = entry.readUInt32BE(8);
    const l1Offset = Number(entry.readBigUInt64BE(0));
    if (entries > MOST_L1_ENTRIES) findings.add(`${what} has ${entries} entries`);
    else if (!Number.isSafeInteger(l1Offset)) findings.add(`${what} begins at byte ${l1Offset}`);
    else regions.push({ offset: l1Offset, entries, isActive: false, what });
  }
  references.own(offset, reader.doneBytes, 'the snapshot table');
  return regions;
}
