/** Finds where the bytes of a sparse extent are: splits a range into parts that are kept in one way. */
import { addPart, type Finder, type Part } from '../lookup/part.js';
import { SECTOR_BYTES } from './descriptor.js';
import { entryIn, type GrainTables, unreadable } from './grain-tables.js';

const ZERO_GRAIN = 1;

/** The place of an `encoded` part is that of its grain in the image: of the marker, if there is one. */
export class GrainFinder implements Finder<Part> {
  readonly #tables: GrainTables;

  constructor(tables: GrainTables) {
    this.#tables = tables;
  }

  /** @throws FusetapError FAILED, errno EIO, if a table or a grain is not inside the image */
  async find(offset: number, length: number): Promise<Part[]> {
    const found: Part[] = [];
    for (const { index, from, to } of this.#byTable(offset, length)) {
      const table = await this.#tables.get(index);
      if (table === null) addPart(found, none(from, to));
      else for (const at of this.#byGrain(from, to)) addPart(found, this.#partOf(table, at.from, at.to));
    }
    return found;
  }

  peek(offset: number, length: number): Part[] {
    const found: Part[] = [];
    for (const { index, from, to } of this.#byTable(offset, length)) {
      const table = this.#tables.peek(index);
      if (table === null) addPart(found, none(from, to));
      else if (table !== undefined) this.#addSound(found, table, { from, to });
    }
    return found;
  }

  /** Adds the grains that are inside the image: the request that needs another gets the error. */
  #addSound(found: Part[], table: Buffer, range: { readonly from: number; readonly to: number }): void {
    for (const { from, to } of this.#byGrain(range.from, range.to)) {
      try {
        addPart(found, this.#partOf(table, from, to));
      } catch {
        // left out
      }
    }
  }

  *#byTable(offset: number, length: number): Generator<{ index: number; from: number; to: number }> {
    const { mappedBytes } = this.#tables;
    const end = offset + length;
    for (let from = offset; from < end; ) {
      const index = Math.floor(from / mappedBytes);
      const to = Math.min(end, (index + 1) * mappedBytes);
      yield { index, from, to };
      from = to;
    }
  }

  *#byGrain(offset: number, end: number): Generator<{ from: number; to: number }> {
    const { grainBytes } = this.#tables.header;
    for (let from = offset; from < end; ) {
      const to = Math.min(end, (Math.floor(from / grainBytes) + 1) * grainBytes);
      yield { from, to };
      from = to;
    }
  }

  /** A part of one grain. */
  #partOf(table: Buffer, from: number, to: number): Part {
    const { header, image } = this.#tables;
    const { grainBytes, hasZeroGrains, isCompressed, size } = header;
    const grain = Math.floor(from / grainBytes);
    const entry = entryIn(table, grain);
    if (entry === 0) return none(from, to);
    if (entry === ZERO_GRAIN && hasZeroGrains) return { ...none(from, to), kind: 'zeros' };
    const place = entry * SECTOR_BYTES;
    const start = grain * grainBytes;
    // the last grain may be cut at the end of the extent; the end of a compressed one is known when it is read
    const bytes = isCompressed ? 1 : Math.min(grainBytes, size - start);
    if (place + bytes > image.size) throw unreadable(`the grain at byte ${place} is not inside it`);
    const kind = isCompressed ? 'encoded' : 'data';
    const at = isCompressed ? place : place + from - start;
    return { ...none(from, to), kind, place: at, hasPlace: true };
  }
}

/** A part that the image does not have. */
function none(from: number, to: number): Part {
  return { offset: from, length: to - from, kind: 'none', place: 0, hasPlace: false, isOwn: false };
}
