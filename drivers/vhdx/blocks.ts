/**
 * The block allocation table (BAT): 8 bytes for each block, little-endian. Bits 0 to 2 are the state, bits 20 to 63 the place of
 * the block in the image, in MiB.
 *
 *      b b b … b s   b b b … b s   …        after the blocks of a chunk, its sector bitmap, also if there is no parent
 *
 * A chunk has 2^23 sectors, so a sector bitmap has 1 MiB: a bit for each sector, the lowest bit first. It says which sectors of
 * blocks that are partly there are in the image; the others are in the parent.
 */
import { broken } from '../formats/faults.js';
import { lastAtOrBefore } from '../segments/joined-disk.js';
import type { Metadata } from './metadata.js';
import type { Area, Regions } from './regions.js';
import type { ReplayedImage } from './replayed-image.js';

const MIB = 1 << 20;
export const ENTRY_BYTES = 8;
export const BITMAP_BYTES = MIB;
const CHUNK_SECTORS = 2 ** 23;

/** How blocks are numbered. */
export interface BlockShape extends Pick<Metadata, 'size' | 'blockBytes' | 'logicalSectorBytes'> {
  readonly hasParent: boolean;
  /** where the BAT begins in the image */
  readonly batPlace: number;
  readonly blocks: number;
  readonly chunkBlocks: number;
}

/** @throws FusetapError FAILED if the BAT is too small for the disk */
export function blockShape(metadata: Metadata, { bat }: Pick<Regions, 'bat'>): BlockShape {
  const { size, blockBytes, logicalSectorBytes } = metadata;
  const hasParent = metadata.parent !== null;
  const blocks = Math.ceil(size / blockBytes);
  const chunkBlocks = (CHUNK_SECTORS * logicalSectorBytes) / blockBytes;
  const entries = hasParent
    ? Math.ceil(blocks / chunkBlocks) * (chunkBlocks + 1)
    : blocks + Math.floor((blocks - 1) / chunkBlocks);
  if (entries * ENTRY_BYTES > bat.length) {
    throw broken('VHDX', `its block table has ${bat.length} bytes, and the disk needs ${entries} entries`);
  }
  return { size, blockBytes, logicalSectorBytes, hasParent, batPlace: bat.offset, blocks, chunkBlocks };
}

/** Where the entry of a block is in the image. */
export function entryPlace({ batPlace, chunkBlocks }: BlockShape, block: number): number {
  return batPlace + (block + Math.floor(block / chunkBlocks)) * ENTRY_BYTES;
}

/** Where the entry of the sector bitmap of a block is in the image. */
export function bitmapEntryPlace({ batPlace, chunkBlocks }: BlockShape, block: number): number {
  const chunk = Math.floor(block / chunkBlocks);
  return batPlace + (chunk * (chunkBlocks + 1) + chunkBlocks) * ENTRY_BYTES;
}

/** `none`: in the parent, or zeros if there is none; `partial`: the sector bitmap tells */
export type BlockKind = 'none' | 'zeros' | 'data' | 'partial';

export interface BlockEntry {
  readonly kind: BlockKind;
  /** of `data` and `partial`: the first byte in the image */
  readonly place: number;
}

/** States 0 to 7; 5 is an old number of 3. */
const KINDS: readonly (BlockKind | null)[] = ['none', 'zeros', 'zeros', 'zeros', null, 'zeros', 'data', 'partial'];
const BITMAP_PRESENT = 6;

/** Reads entries, and checks what they name: it lies in the image, and in no header, log or table. */
export class EntryParser {
  readonly #shape: BlockShape;
  readonly #image: ReplayedImage;
  readonly #areas: readonly Area[];

  constructor(shape: BlockShape, image: ReplayedImage, areas: readonly Area[]) {
    this.#shape = shape;
    this.#image = image;
    this.#areas = areas;
  }

  /** @throws FusetapError FAILED if the entry is not valid */
  block(bytes: Buffer, at: number, block: number): BlockEntry {
    const { hasParent, blockBytes, size } = this.#shape;
    const state = stateAt(bytes, at);
    const kind = KINDS[state] ?? null;
    if (kind === null || (kind === 'partial' && !hasParent)) {
      throw broken('VHDX', `its block ${block} has the state ${state}`);
    }
    if (kind === 'none' || kind === 'zeros') return kind === 'none' ? NONE : ZEROS;
    const place = placeAt(bytes, at);
    // the file may end with the disk, before the end of its last block
    this.#check(place, Math.min(blockBytes, size - block * blockBytes), `block ${block}`);
    return { kind, place };
  }

  /** The place of the sector bitmap of a block. @throws FusetapError FAILED if there is none, or the entry is not valid */
  bitmap(bytes: Buffer, at: number, block: number): number {
    const state = stateAt(bytes, at);
    const is = `sector bitmap of block ${block}`;
    if (state !== BITMAP_PRESENT) throw broken('VHDX', `the ${is} is not there: its state is ${state}`);
    const place = placeAt(bytes, at);
    this.#check(place, BITMAP_BYTES, is);
    return place;
  }

  #check(place: number, length: number, is: string): void {
    if (place + length > this.#image.size) {
      throw broken('VHDX', `its ${is} is at byte ${place}, and the file ends at byte ${this.#image.size}`);
    }
    const area = this.#areas[lastAtOrBefore(this.#areas, place + length - 1)] as Area;
    if (area.offset + area.length > place) throw broken('VHDX', `its ${is} is at byte ${place}, in its ${area.is}`);
  }
}

const NONE: BlockEntry = { kind: 'none', place: 0 };
const ZEROS: BlockEntry = { kind: 'zeros', place: 0 };

function stateAt(bytes: Buffer, at: number): number {
  return bytes.readUInt8(at) & 7;
}

function placeAt(bytes: Buffer, at: number): number {
  return (bytes.readUInt32LE(at + 4) * 2 ** 12 + (bytes.readUInt32LE(at) >>> 20)) * MIB;
}
