/**
 * The entries of L1 and L2 tables. A table is kept as its bytes; an entry is read as two words of 32 bits, because numbers
 * of 64 bits are slow in JavaScript.
 *
 *      L1              63 refcount is 1   │ 9–55 place of the L2 table
 *      L2              62 compressed: see below
 *                      63 refcount is 1   │ 9–55 place of the cluster │ 0 reads as zeros
 *      compressed      0 … x−1 place of the stream, any byte │ x … 61 count of further sectors,  x = 62 − (bits − 8)
 *      extended L2     a second number: 0–31 subclusters that are allocated, 32–63 subclusters that are zeros
 */
import { broken } from '../../formats/faults.js';
import { FORMAT, SUBCLUSTERS } from './header.js';

/** bit 63 in the high word: the refcount of what the entry names is 1, so it may be written in place */
export const COPIED = 0x8000_0000;
export const COMPRESSED = 0x4000_0000;
/** bit 0 in the low word: the cluster reads as zeros */
export const ZERO = 1;
/** bits 56 to 61 of the high word, bits 0 to 8 of the low word */
const RESERVED_HIGH = 0x3f00_0000;
const RESERVED_LOW = 0x1fe;
const L1_RESERVED_HIGH = 0x7f00_0000;
const L1_RESERVED_LOW = 0x1ff;
const HIGH_UNIT = 2 ** 32;

/** The place in an L1 or L2 entry: bits 9 to 55. It may be above the end of the image. */
export function placeOf(high: number, low: number): number {
  return (high & 0x00ff_ffff) * HIGH_UNIT + ((low & 0xffff_fe00) >>> 0);
}

export interface L1Entry {
  /** the place of the L2 table; 0 if there is none */
  readonly place: number;
  readonly copied: boolean;
}

/** @throws FusetapError FAILED for reserved bits and places that are not aligned */
export function parseL1(high: number, low: number, clusterBytes: number): L1Entry {
  const place = placeOf(high, low);
  if ((high & L1_RESERVED_HIGH) !== 0 || (low & L1_RESERVED_LOW) !== 0 || place % clusterBytes !== 0) {
    throw broken(FORMAT, 'an entry of its L1 table is not valid');
  }
  return { place, copied: (high & COPIED) !== 0 };
}

/** How a guest cluster is kept. */
export type ClusterKind = 'none' | 'zeros' | 'data' | 'compressed';

export interface ClusterEntry {
  readonly kind: ClusterKind;
  /** the host cluster, also of `zeros` that keep their place (else 0); of `compressed` the first byte of the stream */
  readonly place: number;
  /** the refcount is 1 */
  readonly copied: boolean;
  /** the entry names a host cluster: for data files, place 0 is one too */
  readonly hasPlace: boolean;
  /** of `compressed`: an upper bound for the bytes of the stream; else 0 */
  readonly streamBytes: number;
  /** extended L2: subclusters that are allocated, bit 0 is the first; else all or none */
  readonly allocated: number;
  /** extended L2: subclusters that read as zeros; else all or none */
  readonly zeros: number;
}

export interface EntryShape {
  readonly clusterBits: number;
  readonly clusterBytes: number;
  readonly version: 2 | 3;
  readonly hasExtendedL2: boolean;
  readonly hasDataFile: boolean;
}

const ALL = 0xffff_ffff;

/**
 * Parses the entry of a guest cluster.
 * @param table the bytes of the L2 table
 * @param at the byte of the entry in it
 * @throws FusetapError FAILED if it is not valid
 */
export function parseL2(table: Buffer, at: number, shape: EntryShape): ClusterEntry {
  const high = table.readUInt32BE(at);
  const low = table.readUInt32BE(at + 4);
  if ((high & COMPRESSED) !== 0) return parseCompressed(high, low, shape);
  const { hasExtendedL2, version, clusterBytes, hasDataFile } = shape;
  const place = placeOf(high, low);
  const zero = (low & 1) !== 0;
  if ((high & RESERVED_HIGH) !== 0 || (low & RESERVED_LOW) !== 0 || (zero && (version === 2 || hasExtendedL2))) {
    throw badEntry('has reserved bits');
  }
  if (place % clusterBytes !== 0) throw badEntry('names a place that is not a cluster');
  // the places in a data file have no other bound
  if (place > Number.MAX_SAFE_INTEGER - clusterBytes) throw badEntry('names a place that is too large');
  const copied = (high & COPIED) !== 0;
  const hasPlace = place !== 0 || (hasDataFile && copied);
  const base = { place, copied, hasPlace, streamBytes: 0 };
  if (!hasExtendedL2) {
    if (zero) return { ...base, kind: 'zeros', allocated: 0, zeros: ALL };
    return hasPlace
      ? { ...base, kind: 'data', allocated: ALL, zeros: 0 }
      : { ...base, kind: 'none', allocated: 0, zeros: 0 };
  }
  const zeros = table.readUInt32BE(at + 8);
  const allocated = table.readUInt32BE(at + 12);
  if ((zeros & allocated) !== 0) throw badEntry('has a part that is both data and zeros');
  if (allocated !== 0 && !hasPlace) throw badEntry('has data, but no place for it');
  const kind = allocated !== 0 ? 'data' : zeros !== 0 ? 'zeros' : 'none';
  return { ...base, kind, allocated, zeros };
}

function parseCompressed(high: number, low: number, { clusterBits, hasDataFile }: EntryShape): ClusterEntry {
  if (hasDataFile) throw badEntry('is compressed, which an image with a data file cannot have');
  // the place has x bits: 32 to 61, so x is never inside the low word
  const x = 62 - (clusterBits - 8);
  const highBits = x - 32;
  const placeHigh = (high & 0x3fff_ffff) % 2 ** highBits;
  const sectors = Math.floor((high & 0x3fff_ffff) / 2 ** highBits);
  const place = placeHigh * HIGH_UNIT + low;
  if (!Number.isSafeInteger(place)) throw badEntry('names a place that is too large');
  return {
    kind: 'compressed',
    place,
    copied: false,
    hasPlace: true,
    streamBytes: (sectors + 1) * 512 - (place % 512),
    allocated: ALL,
    zeros: 0,
  };
}

function badEntry(what: string): Error {
  return broken(FORMAT, `an entry of an L2 table ${what}`);
}

/** Whether an entry has a place of its own that keeps no data, or not all. */
export function isKept({ kind, hasPlace, copied }: ClusterEntry): boolean {
  return kind !== 'compressed' && hasPlace && copied;
}

/** Whether others use the bytes of a cluster too, or they are compressed: all of it moves when a part of it changes. */
export function mustMove({ kind, copied }: ClusterEntry): boolean {
  return kind === 'compressed' || (kind === 'data' && !copied);
}

/**
 * The subclusters that a range touches, as bits.
 * @param start where their cluster begins in the disk
 */
export function subclustersIn(
  start: number,
  { from, to }: { readonly from: number; readonly to: number },
  unitBytes: number,
): number {
  const first = Math.max(0, Math.floor((from - start) / unitBytes));
  const end = Math.min(SUBCLUSTERS, Math.ceil((to - start) / unitBytes));
  let units = 0;
  for (let unit = first; unit < end; unit++) units |= 1 << unit;
  return units >>> 0;
}

/** Writes the first number of an entry. @param flags COPIED and ZERO, or 0 */
export function putEntry(table: Buffer, at: number, place: number, flags: number): void {
  table.writeUInt32BE(((Math.floor(place / HIGH_UNIT) & 0x00ff_ffff) | (flags & COPIED)) >>> 0, at);
  table.writeUInt32BE(((place % HIGH_UNIT) | (flags & ZERO)) >>> 0, at + 4);
}
