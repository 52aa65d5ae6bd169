/** Finds where the bytes of a disk of blocks are. */
import { addPart, type Finder, type Part } from '../lookup/part.js';
import type { Block, BlockTable } from './block-table.js';
import { SECTOR_BYTES } from './sector-bits.js';

export class BlockFinder implements Finder<Part> {
  readonly #table: BlockTable;

  constructor(table: BlockTable) {
    this.#table = table;
  }

  /** All parts are as they are at one moment. */
  async find(offset: number, length: number): Promise<Part[]> {
    // what is read for this call, also if the table does not keep it
    const read = new Map<number, Block | null>();
    for (const { block } of this.#byBlock(offset, length)) {
      if (this.#table.peek(block) === undefined) read.set(block, await this.#table.get(block));
    }
    const parts: Part[] = [];
    for (const { block, start, from, to } of this.#byBlock(offset, length)) {
      const known = this.#table.peek(block) ?? read.get(block) ?? null;
      addParts(parts, known, start, { from, to });
    }
    return parts;
  }

  peek(offset: number, length: number): Part[] {
    const parts: Part[] = [];
    for (const { block, start, from, to } of this.#byBlock(offset, length)) {
      const known = this.#peekBlock(block);
      if (known !== undefined) addParts(parts, known, start, { from, to });
    }
    return parts;
  }

  #peekBlock(block: number): Block | null | undefined {
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
}

interface Range {
  readonly from: number;
  readonly to: number;
}

/** @param start where the block begins in the disk */
function addParts(parts: Part[], known: Block | null, start: number, { from, to }: Range): void {
  if (known === null) return addPart(parts, none(from, to));
  const { place, present } = known;
  if (present === null) return addPart(parts, data(place, start, { from, to }));
  const last = Math.ceil((to - start) / SECTOR_BYTES);
  for (let sector = Math.floor((from - start) / SECTOR_BYTES); sector < last; ) {
    const run = present.run(sector, last);
    const range = {
      from: Math.max(from, start + sector * SECTOR_BYTES),
      to: Math.min(to, start + (sector + run.count) * SECTOR_BYTES),
    };
    addPart(parts, run.present ? data(place, start, range) : none(range.from, range.to));
    sector += run.count;
  }
}

function none(from: number, to: number): Part {
  return { offset: from, length: to - from, kind: 'none', place: 0, hasPlace: false, isOwn: false };
}

function data(place: number, start: number, { from, to }: Range): Part {
  return { offset: from, length: to - from, kind: 'data', place: place + from - start, hasPlace: true, isOwn: true };
}
