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

/** A block as the table has it. `zeros`: it reads as zeros, and has no place. Null: the image does not have it. */
export type Entry = Block | 'zeros' | null;

export interface BlockTable {
  /** bytes; the last block of the disk may be cut */
  readonly blockBytes: number;
  /** A block that has a place can be written there, and nothing else of the image changes; default: true. */
  readonly mayWriteInPlace?: boolean;
  /** Reads what an earlier server may have changed. Must have resolved before any other call. */
  load(): Promise<void>;
  /**
   * A block.
   * @throws FusetapError FAILED if its entry is not valid
   */
  get(block: number): Promise<Entry>;
  /** The same without waiting; undefined: something must be read first. @throws as get */
  peek(block: number): Entry | undefined;
}

/** Sectors of a block that follow one another. */
export interface Sectors {
  readonly first: number;
  readonly count: number;
}

/** A table that can get blocks. Calls for one block come one after the other. */
export interface GrowingTable extends BlockTable {
  /** A block that was added has all its sectors, also over a backing disk; default: those with which it was added. */
  readonly addsWhole?: boolean;
  /** Must have resolved before the disk is changed, if `mayWriteInPlace` is false; it is true then. */
  begin?(): Promise<void>;
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
  /** A block without a place reads as zeros from now on, whatever is below. Default: it needs a place for that. */
  addZeros?(block: number): Promise<void>;
  /** For a clean end: all requests have ended. */
  close(): Promise<void>;
}
