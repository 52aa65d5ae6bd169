/**
 * Finds where the bytes of the disk are: splits a range into parts that are kept in one way. A part of an image with
 * extended L2 begins and ends at subclusters, else at clusters.
 */

import { addPart, type Finder, type Part } from '../../lookup/part.js';
import type { ClusterEntry } from '../format/entries.js';
import { unitBytesOf } from '../format/header.js';
import type { L2Table, L2Tables } from './l2-tables.js';

/** A part of the disk of a qcow2 image. Of an `encoded` one, the place is where its cluster begins in the disk. */
export interface Found extends Part {
  /** of the first cluster of the part */
  readonly entry: ClusterEntry;
}

export class Qcow2Finder implements Finder<Found> {
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
    if (table === null) return addPart(found, partOf('none', this.#tables.entry(null, 0), from, { from, to }));
    for (let at = from; at < to; ) {
      const cluster = Math.floor(at / this.#clusterBytes);
      const start = cluster * this.#clusterBytes;
      const end = Math.min(to, start + this.#clusterBytes);
      const entry = this.#tables.entry(table, cluster);
      if (this.#hasExtendedL2 && entry.kind !== 'compressed') this.#addParts(found, entry, start, { at, end });
      else addPart(found, partOf(entry.kind, entry, start, { from: at, to: end }));
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
      addPart(found, partOf(kind, entry, start, { from, to }));
      from = to;
    }
  }
}

/** A part of a cluster. @param start where the cluster begins in the disk */
function partOf(
  kind: ClusterEntry['kind'],
  entry: ClusterEntry,
  start: number,
  { from, to }: { from: number; to: number },
): Found {
  const hasPlace = kind === 'data' || kind === 'compressed' || (kind === 'zeros' && entry.hasPlace);
  return {
    offset: from,
    length: to - from,
    kind: kind === 'compressed' ? 'encoded' : kind,
    place: kind === 'compressed' ? start : hasPlace ? entry.place + from - start : 0,
    hasPlace,
    isOwn: kind === 'data' && entry.copied,
    entry,
  };
}
