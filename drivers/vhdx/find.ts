/** Finds where the bytes of the disk are: splits a range into parts by the BAT, the sector bitmaps, and what the log replaces. */
import { addPart, type Finder, type Part } from '../lookup/part.js';
import { type BlockEntry, type BlockShape, bitmapEntryPlace, EntryParser, entryPlace } from './blocks.js';
import type { Area } from './regions.js';
import type { ReplayedImage } from './replayed-image.js';
import { PAGE_BYTES, type TablePages } from './table-pages.js';

/** Wants pages of tables, by their places; gets null for one that is not in memory, and leaves out its range. */
type Walk = Generator<number, void, Buffer | null>;

/** A range of the disk inside one block. */
interface Piece {
  readonly block: number;
  readonly from: number;
  readonly to: number;
}

interface Bytes {
  readonly page: Buffer;
  readonly at: number;
}

export class VhdxFinder implements Finder<Part> {
  readonly #shape: BlockShape;
  readonly #image: ReplayedImage;
  readonly #pages: TablePages;
  readonly #entries: EntryParser;

  constructor(
    shape: BlockShape,
    image: ReplayedImage,
    { areas, pages }: { areas: readonly Area[]; pages: TablePages },
  ) {
    this.#shape = shape;
    this.#image = image;
    this.#pages = pages;
    this.#entries = new EntryParser(shape, image, areas);
  }

  async find(offset: number, length: number): Promise<Part[]> {
    const found: Part[] = [];
    for (const piece of this.#pieces(offset, length)) {
      const walk = this.#addPiece(found, piece);
      for (let step = walk.next(); !step.done; ) step = walk.next(await this.#pages.get(step.value));
    }
    return found;
  }

  peek(offset: number, length: number): Part[] {
    const found: Part[] = [];
    for (const piece of this.#pieces(offset, length)) {
      const walk = this.#addPiece(found, piece);
      try {
        for (let step = walk.next(); !step.done; ) step = walk.next(this.#pages.peek(step.value) ?? null);
      } catch {
        // the request that needs it gets the error
      }
    }
    return found;
  }

  *#pieces(offset: number, length: number): Generator<Piece> {
    const { blockBytes } = this.#shape;
    const end = offset + length;
    for (let from = offset; from < end; ) {
      const block = Math.floor(from / blockBytes);
      const to = Math.min(end, (block + 1) * blockBytes);
      yield { block, from, to };
      from = to;
    }
  }

  *#addPiece(found: Part[], piece: Piece): Walk {
    const { block, from, to } = piece;
    const bytes = yield* bytesAt(entryPlace(this.#shape, block));
    if (bytes === null) return;
    const entry = this.#entries.block(bytes.page, bytes.at, block);
    if (entry.kind === 'partial') yield* this.#addPartial(found, piece, entry);
    else if (entry.kind === 'data') this.#addData(found, piece, entry);
    else addPart(found, partOf(entry.kind, from, to, null));
  }

  *#addPartial(found: Part[], piece: Piece, entry: BlockEntry): Walk {
    const { block, from, to } = piece;
    const { logicalSectorBytes, chunkBlocks, blockBytes } = this.#shape;
    const bytes = yield* bytesAt(bitmapEntryPlace(this.#shape, block));
    if (bytes === null) return;
    const bitmap = this.#entries.bitmap(bytes.page, bytes.at, block);
    const chunk = Math.floor(block / chunkBlocks) * chunkBlocks * blockBytes;
    for (let at = from; at < to; ) {
      const sector = Math.floor((at - chunk) / logicalSectorBytes);
      const bits = yield* bytesAt(bitmap + Math.floor(sector / 8));
      // the rest of the page; a block begins and ends with a byte of the bitmap
      const inPage = bits === null ? PAGE_BYTES : PAGE_BYTES - bits.at;
      const last = chunk + (sector - (sector % 8) + inPage * 8) * logicalSectorBytes;
      const end = Math.min(to, last);
      if (bits !== null) this.#addSectors(found, { block, from: at, to: end }, entry, { ...bits, chunk });
      at = end;
    }
  }

  /** @param bits the byte of the bitmap with the first sector of the piece */
  #addSectors(found: Part[], piece: Piece, entry: BlockEntry, { page, at, chunk }: Bytes & { chunk: number }): void {
    const { logicalSectorBytes: sectorBytes } = this.#shape;
    const first = Math.floor((piece.from - chunk) / sectorBytes);
    const end = Math.ceil((piece.to - chunk) / sectorBytes);
    const firstBit = at * 8 + (first % 8);
    for (let sector = first; sector < end; ) {
      const bit = firstBit + sector - first;
      const isHere = bitAt(page, bit);
      const next = Math.min(end, sector + runOf(page, bit, isHere));
      const from = Math.max(piece.from, chunk + sector * sectorBytes);
      const to = Math.min(piece.to, chunk + next * sectorBytes);
      if (isHere) this.#addData(found, { ...piece, from, to }, entry);
      else addPart(found, partOf('none', from, to, null));
      sector = next;
    }
  }

  #addData(found: Part[], { block, from, to }: Piece, { place }: BlockEntry): void {
    const before = place - block * this.#shape.blockBytes;
    for (const { offset, length, isReplaced } of this.#image.partsOf(before + from, to - from)) {
      const at = offset - before;
      addPart(found, partOf(isReplaced ? 'memory' : 'data', at, at + length, offset));
    }
  }
}

/** The page of a table with the byte at a place. */
function* bytesAt(place: number): Generator<number, Bytes | null, Buffer | null> {
  const at = place % PAGE_BYTES;
  const page = yield place - at;
  return page === null ? null : { page, at };
}

function bitAt(bytes: Buffer, bit: number): boolean {
  return (((bytes[bit >> 3] as number) >> (bit & 7)) & 1) === 1;
}

/** How many bits from one on are the same; up to the end of the bytes. */
function runOf(bytes: Buffer, first: number, isSet: boolean): number {
  const end = bytes.length * 8;
  const whole = isSet ? 0xff : 0;
  let bit = first + 1;
  while (bit < end && (bit & 7) !== 0 && bitAt(bytes, bit) === isSet) bit += 1;
  while (bit < end && (bit & 7) === 0 && bytes[bit >> 3] === whole) bit += 8;
  while (bit < end && bitAt(bytes, bit) === isSet) bit += 1;
  return bit - first;
}

function partOf(kind: Part['kind'], from: number, to: number, place: number | null): Part {
  return { offset: from, length: to - from, kind, place: place ?? 0, hasPlace: place !== null, isOwn: false };
}
