/** Finds where the bytes of a disk of blocks are. */
import { addPart, type Finder, type Part } from '../lookup/part.js';
import type { BlockTable, Entry } from './block-table.js';
import { SECTOR_BYTES } from './sector-bits.js';

export class BlockFinder implements Finder<Part> {
  readonly #table: BlockTable;

  constructor(table: BlockTable) {
    this.#table = table;
  }

  /** All parts are as they are at one moment. */
  async find(offset: number, length: number): Promise<Part[]> {
    // what is read for this call, also if the table does not keep it
    const read = new Map<number, Entry>();
    for (const { block } of this.#byBlock(offset, length)) {
      if (this.#table.peek(block) === undefined) read.set(block, await this.#table.get(block));
    }
    const parts: Part[] = [];
    for (const { block, start, from, to } of this.#byBlock(offset, length)) {
      const known = this.#table.peek(block) ?? read.get(block) ?? null;
      this.#addParts(parts, known, start, { from, to });
    }
    return parts;
  }

  peek(offset: number, length: number): Part[] {
    const parts: Part[] = [];
    for (const { block, start, from, to } of this.#byBlock(offset, length)) {
      const known = this.#peekBlock(block);
      if (known !== undefined) this.#addParts(parts, known, start, { from, to });
    }
    return parts;
  }

  #peekBlock(block: number): Entry | undefined {
    try {
      return this.#table.peek(block);
    } catch {
      // the request that needs it gets the error
      return undefined;
    }
  }

  *#byBlock(offset: number, length: number): Generator<{ block: number; start: number; from: number; to: number }> {
    const { blockBytes } = this.#table;
    const end = offset + length;
    for (let from = offset; from < end; ) {
      const block = Math.floor(from / blockBytes);
      const start = block * blockBytes;
      const to = Math.min(end, start + blockBytes);
      yield { block, start, from, to };
      from = to;
    }
  }

  /** @param start where the block begins in the disk */
  #addParts(parts: Part[], known: Entry, start: number, { from, to }: Range): void {
    if (known === null) return addPart(parts, none(from, to));
    if (known === 'zeros') return addPart(parts, { ...none(from, to), kind: 'zeros' });
    const { mayWriteInPlace: isOwn = true } = this.#table;
    const data = (range: Range): Part => {
      const place = known.place + range.from - start;
      return { ...none(range.from, range.to), kind: 'data', place, hasPlace: true, isOwn };
    };
    const { present } = known;
    if (present === null) return addPart(parts, data({ from, to }));
    const last = Math.ceil((to - start) / SECTOR_BYTES);
    for (let sector = Math.floor((from - start) / SECTOR_BYTES); sector < last; ) {
      const run = present.run(sector, last);
      const range = {
        from: Math.max(from, start + sector * SECTOR_BYTES),
        to: Math.min(to, start + (sector + run.count) * SECTOR_BYTES),
      };
      addPart(parts, run.present ? data(range) : none(range.from, range.to));
      sector += run.count;
    }
  }
}

interface Range {
  readonly from: number;
  readonly to: number;
}

function none(from: number, to: number): Part {
  return { offset: from, length: to - from, kind: 'none', place: 0, hasPlace: false, isOwn: false };
}
