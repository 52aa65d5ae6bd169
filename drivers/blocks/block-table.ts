/**
 * The table of a format whose disk is blocks of one size: where each block is in the image. A format writes the rest: the
 * finder, the writer and the map know only this.
 */
import type { SectorBits } from './sector-bits.js';

/** A block that the image has. */
export interface Block {
  /** its first byte of data in the image */
  readonly place: number;
  /** the sectors of it that the image has; null: all */
  readonly present: SectorBits | null;
}

export interface BlockTable {
  /** bytes; the last block of the disk may be cut */
  readonly blockBytes: number;
  /** Reads what an earlier server may have changed. Must have resolved before any other call. */
  load(): Promise<void>;
  /**
   * A block; null: the image does not have it.
   * @throws FusetapError FAILED if its entry is not valid
   */
  get(block: number): Promise<Block | null>;
  /** The same without waiting; undefined: something must be read first. @throws as get */
  peek(block: number): Block | null | undefined;
}

/** Sectors of a block that follow one another. */
export interface Sectors {
  readonly first: number;
  readonly count: number;
}

/** A table that can get blocks. Calls for one block come one after the other. */
export interface GrowingTable extends BlockTable {
  /**
   * Space for the data of a block, which nothing refers to: zeros, also after a power cut.
   * @returns its first byte @throws FusetapError NO_SPACE
   */
  allocate(): Promise<number>;
  /** Takes back the space of a block that nothing refers to, although it may have been written. */
  giveBack(place: number): void;
  /** The image has these sectors of a block from now on, and the block. */
  add(block: number, place: number, sectors: Sectors): Promise<void>;
  /** The image has more sectors of a block from now on. */
  mark(block: number, sectors: Sectors): Promise<void>;
  /** For a clean end: all requests have ended. */
  close(): Promise<void>;
}
