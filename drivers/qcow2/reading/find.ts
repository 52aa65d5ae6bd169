/**
 * Finds where the bytes of the disk are: splits a range into parts that are kept in one way. A part of an image with
 * extended L2 begins and ends at subclusters, else at clusters.
 */
import type { ClusterEntry } from '../format/entries.js';
import { unitBytesOf } from '../format/header.js';
import type { L2Table, L2Tables } from './l2-tables.js';

/** A part of the disk, kept in one way. */
export interface Found {
  readonly offset: number;
  readonly length: number;
  /** `none`: the bytes are in the backing file, or zeros */
  readonly kind: ClusterEntry['kind'];
  /**
   * of `data`, and of `zeros` that keep a place: the first byte in the image or data file; of `compressed`: its cluster
   * begins here in the disk
   */
  readonly place: number;
  /** of the first cluster of the part */
  readonly entry: ClusterEntry;
}

export class Finder {
  readonly #tables: L2Tables;
  readonly #clusterBytes: number;
  readonly #hasExtendedL2: boolean;

  constructor(tables: L2Tables) {
    this.#tables = tables;
    this.#clusterBytes = tables.shape.clusterBytes;
    this.#hasExtendedL2 = tables.shape.hasExtendedL2;
  }

  /** @throws FusetapError FAILED if a table in the range is damaged; errors of the image */
  async find(offset: number, length: number): Promise<Found[]> {
    const found: Found[] = [];
    for (const { l1Index, from, to } of this.#byTable(offset, length)) {
      this.#add(found, await this.#tables.get(l1Index), from, to);
    }
    return found;
  }

  /** As find, for the tables that are in memory; the other parts of the range, and damaged ones, are left out. */
  peek(offset: number, length: number): Found[] {
    const found: Found[] = [];
    for (const { l1Index, from, to } of this.#byTable(offset, length)) {
      const table = this.#tables.peek(l1Index);
      if (table === undefined) continue;
      for (let at = from; at < to; ) {
        const end = Math.min(to, (Math.floor(at / this.#clusterBytes) + 1) * this.#clusterBytes);
        try {
          this.#add(found, table, at, end);
        } catch {
          // the request that needs it gets the error
        }
        at = end;
      }
    }
    return found;
  }

  *#byTable(offset: number, length: number): Generator<{ l1Index: number; from: number; to: number }> {
    const tableBytes = this.#tables.mappedBytes;
    const end = offset + length;
    for (let from = offset; from < end; ) {
      const l1Index = Math.floor(from / tableBytes);
      const to = Math.min(end, (l1Index + 1) * tableBytes);
      yield { l1Index, from, to };
      from = to;
    }
  }

  #add(found: Found[], table: L2Table | null, from: number, to: number): void {
    if (table === null)
      return this.#join(found, from, to, { kind: 'none', place: 0, entry: this.#tables.entry(null, 0) });
    for (let at = from; at < to; ) {
      const cluster = Math.floor(at / this.#clusterBytes);
      const start = cluster * this.#clusterBytes;
      const end = Math.min(to, start + this.#clusterBytes);
      const entry = this.#tables.entry(table, cluster);
      if (this.#hasExtendedL2 && entry.kind !== 'compressed') this.#addParts(found, entry, start, { at, end });
      else this.#join(found, at, end, { kind: entry.kind, place: placeIn(entry.kind, entry, start, at), entry });
      at = end;
    }
  }

  /** The subclusters of a cluster. */
  #addParts(found: Found[], entry: ClusterEntry, start: number, { at, end }: { at: number; end: number }): void {
    const bytes = unitBytesOf(this.#tables.shape);
    for (let from = at; from < end; ) {
      const index = Math.floor((from - start) / bytes);
      const to = Math.min(end, start + (index + 1) * bytes);
      const bit = 1 << index;
      const kind = (entry.allocated & bit) !== 0 ? 'data' : (entry.zeros & bit) !== 0 ? 'zeros' : 'none';
      this.#join(found, from, to, { kind, place: placeIn(kind, entry, start, from), entry });
      from = to;
    }
  }

  /** Adds a part, to the last one if it goes on there. */
  #join(found: Found[], from: number, to: number, part: Pick<Found, 'kind' | 'place' | 'entry'>): void {
    const last = found.at(-1);
    const goesOn =
      last !== undefined &&
      last.offset + last.length === from &&
      last.kind === part.kind &&
      last.entry.copied === part.entry.copied &&
      isNowhere(last) === isNowhere(part) &&
      (isNowhere(part) || (part.kind !== 'compressed' && last.place + last.length === part.place));
    if (goesOn) found[found.length - 1] = { ...last, length: to - last.offset };
    else found.push({ offset: from, length: to - from, ...part });
  }
}

/** Whether no byte of the image or data file belongs to a part. */
function isNowhere({ kind, entry }: Pick<Found, 'kind' | 'entry'>): boolean {
  return kind === 'none' || (kind === 'zeros' && !entry.hasPlace);
}

function placeIn(kind: ClusterEntry['kind'], entry: ClusterEntry, start: number, at: number): number {
  if (kind === 'compressed') return start;
  return isNowhere({ kind, entry }) ? 0 : entry.place + at - start;
}
