/** Bytes that depend on their offset, so that a misplaced read or write is detected. */

/** A range of a disk, with the bytes of the pattern `seed`. */
export interface Piece {
  readonly offset: number;
  readonly length: number;
  readonly seed: number;
  /** the offset whose pattern it has; default: its own offset */
  readonly place?: number;
}

/** Fills the buffer with the pattern at `offset`. All bits of the offset count, also those above 2^32. */
export function fillPattern(buffer: Uint8Array, offset: number, seed: number): void {
  for (let i = 0; i < buffer.length; i++) {
    const at = offset + i;
    const mixed = Math.imul(at, 0x9e3779b1) ^ Math.imul(Math.floor(at / 2 ** 32) + 1, 0x85ebca6b + seed * 2);
    buffer[i] = Math.imul(mixed ^ (mixed >>> 15), 0x2c1b3c6d) >>> 24;
  }
}

export function patternBytes(offset: number, length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  fillPattern(bytes, offset, seed);
  return bytes;
}

export function pieceBytes({ offset, length, seed, place = offset }: Piece): Buffer {
  return patternBytes(place, length, seed);
}
