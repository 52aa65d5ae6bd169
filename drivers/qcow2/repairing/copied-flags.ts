/**
 * Corrects bit 63 of the entries of the active tables: it says that the refcount of what the entry names is 1. An image
 * that is written while the bit is wrong is damaged: what a snapshot has would be written in place.
 */
import type { Disk } from '../../disk.js';
import { readUpTo } from '../../formats/read.js';
import { COMPRESSED, COPIED, placeOf } from '../format/entries.js';
import { type Header, l2EntryBytes } from '../format/header.js';

const PART_BYTES = 64 << 10;

/** What a walk through the tables needs. */
export interface FlagsToCorrect {
  readonly image: Disk;
  readonly header: Header;
  /** How many references a cluster has: its refcount, as soon as that is right. */
  countOf(cluster: number): number;
  readonly signal?: AbortSignal | undefined;
}

/** The image must have been checked: all entries are valid. @returns how many entries were changed */
export async function correctCopied(flags: FlagsToCorrect): Promise<number> {
  const { image, header, signal } = flags;
  const { offset, entries } = header.l1;
  let changed = 0;
  for (let at = 0; at < entries * 8; at += PART_BYTES) {
    signal?.throwIfAborted();
    const part = await readUpTo(image, offset + at, Math.min(PART_BYTES, entries * 8 - at));
    const tables: number[] = [];
    changed += await correctTable(flags, { place: offset + at, bytes: part, entryBytes: 8 }, tables);
    // the clusters of a data file have no refcounts: their bit is always set
    if (header.hasDataFile) continue;
    for (const place of tables) {
      signal?.throwIfAborted();
      const bytes = await readUpTo(image, place, header.clusterBytes);
      changed += await correctTable(flags, { place, bytes, entryBytes: l2EntryBytes(header) }, []);
    }
  }
  return changed;
}

interface Table {
  readonly place: number;
  readonly bytes: Buffer;
  readonly entryBytes: number;
}

/** Corrects a part of a table, and writes what has changed. @param named gets the places that its entries name */
async function correctTable(
  { image, header, countOf }: FlagsToCorrect,
  { place: start, bytes, entryBytes }: Table,
  named: number[],
): Promise<number> {
  let [changed, from, to] = [0, bytes.length, 0];
  for (let at = 0; at + entryBytes <= bytes.length; at += entryBytes) {
    const high = bytes.readUInt32BE(at);
    const place = placeOf(high, bytes.readUInt32BE(at + 4));
    if ((high & COMPRESSED) !== 0 || place === 0) continue;
    named.push(place);
    const right = countOf(place / header.clusterBytes) === 1 ? high | COPIED : high & ~COPIED;
    if (right >>> 0 === high) continue;
    bytes.writeUInt32BE(right >>> 0, at);
    changed += 1;
    from = Math.min(from, at);
    to = at + 8;
  }
  if (changed > 0) await image.write(bytes.subarray(from, to), start + from);
  return changed;
}
