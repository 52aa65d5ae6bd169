/**
 * Counts what the entries of an L2 table refer to.
 *
 * Independent of the code that serves the disk: a fault there must not hide here. The rules are those of QEMU's
 * specification (docs/interop/qcow2.txt) and of its check (block/qcow2-refcount.c).
 */
import type { ClusterStatistics } from '../../examining/examiner.js';
import { COMPRESSED, COPIED, placeOf, ZERO } from '../format/entries.js';
import { type Header, l2EntryBytes } from '../format/header.js';
import type { Counting } from './counting.js';
import { IS_ACTIVE, KIND, SAYS_ONE, SAYS_SHARED } from './references.js';

const RESERVED_HIGH = 0x3f00_0000;
const RESERVED_LOW = 0x1fe;
const SECTOR = 512;

/** Is counted up. */
export type Statistics = { -readonly [Key in keyof ClusterStatistics]: number };

export interface CountedTable {
  /** its first byte in the image */
  readonly place: number;
  readonly bytes: Buffer;
  /** the active L1 table refers to it */
  readonly isActive: boolean;
  /** how many entries of L1 tables refer to it: each of its references counts as often */
  readonly weight: number;
}

export function countEntries(counting: Counting, table: CountedTable, statistics: Statistics): void {
  new EntryCounter(counting, table, statistics).run();
}

class EntryCounter {
  readonly #counting: Counting;
  readonly #header: Header;
  readonly #table: CountedTable;
  readonly #statistics: Statistics;
  readonly #entryBytes: number;
  /** the entry that is being counted */
  #index = 0;
  /** where the next guest cluster is if it is not fragmented; 0: any place */
  #nextPlace = 0;

  constructor(counting: Counting, table: CountedTable, statistics: Statistics) {
    this.#counting = counting;
    this.#header = counting.header;
    this.#table = table;
    this.#statistics = statistics;
    this.#entryBytes = l2EntryBytes(counting.header);
  }

  run(): void {
    const { bytes } = this.#table;
    for (let at = 0; at < bytes.length; at += this.#entryBytes) {
      this.#index = at / this.#entryBytes;
      const high = bytes.readUInt32BE(at);
      const low = bytes.readUInt32BE(at + 4);
      const zeros = this.#header.hasExtendedL2 ? bytes.readUInt32BE(at + 8) : 0;
      const allocated = this.#header.hasExtendedL2 ? bytes.readUInt32BE(at + 12) : 0;
      if ((high | low | zeros | allocated) === 0) continue;
      if ((high & COMPRESSED) !== 0) this.#countStream(high, low, (zeros | allocated) !== 0);
      else this.#countCluster(high, low, { zeros, allocated });
    }
  }

  readonly #describe = (): string => `entry ${this.#index} of the L2 table at byte ${this.#table.place}`;

  #find(what: string): void {
    this.#counting.findings.add(`${this.#describe()} ${what}`);
  }

  #countStream(high: number, low: number, hasParts: boolean): void {
    const { clusterBits, clusterBytes, hasDataFile } = this.#header;
    if (high & COPIED) this.#find('is compressed, but says that its refcount is 1');
    if (hasDataFile) return this.#find('is compressed, although there is a data file');
    if (hasParts) this.#find('is compressed, but has parts');
    // bits 0 to x − 1 are the place; the rest, up to bit 61, counts sectors
    const placeBits = 62 - (clusterBits - 8);
    const unit = 2 ** (placeBits - 32);
    const rest = high & 0x3fff_ffff;
    const place = (rest % unit) * 2 ** 32 + low;
    const end = place - (place % SECTOR) + (Math.floor(rest / unit) + 1) * SECTOR;
    if (this.#table.isActive) {
      this.#statistics.allocated += 1;
      this.#statistics.compressed += 1;
      this.#statistics.fragmented += 1;
    }
    if (!Number.isSafeInteger(end)) return this.#find('names a place that is too large');
    const last = Math.floor((end - 1) / clusterBytes);
    for (let cluster = Math.floor(place / clusterBytes); cluster <= last; cluster++) this.#add(cluster, KIND.stream);
  }

  #countCluster(high: number, low: number, { zeros, allocated }: { zeros: number; allocated: number }): void {
    const { clusterBytes, hasExtendedL2, hasDataFile, version } = this.#header;
    const isZero = (low & ZERO) !== 0;
    const place = placeOf(high, low);
    const isCopied = (high & COPIED) !== 0;
    if ((high & RESERVED_HIGH) !== 0 || (low & RESERVED_LOW) !== 0 || (isZero && (hasExtendedL2 || version === 2))) {
      this.#find('has reserved bits');
    }
    // zeros at the start of a data file have no place in QEMU's eyes
    if (place === 0 && !(hasDataFile && isCopied && !isZero)) {
      if (allocated !== 0) this.#find('has parts with data, but no place for them');
      return;
    }
    if ((zeros & allocated) !== 0) this.#find('has a part that is both data and zeros');
    if (this.#table.isActive) this.#countPlace(place);
    if (place % clusterBytes !== 0) return this.#find(`names byte ${place}, which is not the begin of a cluster`);
    if (!hasDataFile) this.#add(place / clusterBytes, KIND.data | (isCopied ? SAYS_ONE : SAYS_SHARED));
    // the clusters of a data file have no refcounts, and nobody shares them
    else if (this.#table.isActive && !isCopied)
      this.#find('says that its refcount is not 1, although there is a data file');
  }

  #countPlace(place: number): void {
    this.#statistics.allocated += 1;
    if (this.#nextPlace !== 0 && place !== this.#nextPlace) this.#statistics.fragmented += 1;
    this.#nextPlace = place + this.#header.clusterBytes;
  }

  #add(cluster: number, marks: number): void {
    const { references } = this.#counting;
    if (cluster >= references.imageClusters && references.words.get(cluster) === 0) references.beyondEnd += 1;
    // what entries of snapshots say is not used: a program that goes back to one makes it right
    const said = this.#table.isActive ? marks | IS_ACTIVE : marks & ~(SAYS_ONE | SAYS_SHARED);
    references.add(cluster, said, this.#table.weight, this.#describe);
  }
}
