/** Which sectors of a block an image has: a bit for each, the most significant bit of the first byte first. */
export const SECTOR_BYTES = 512;

/** Sectors that follow one another, and are all there or all not. */
export interface SectorRun {
  readonly first: number;
  readonly count: number;
  readonly present: boolean;
}

export class SectorBits {
  /** as in the image; may have more bits than there are sectors */
  readonly bytes: Buffer;
  readonly #sectors: number;

  constructor(bytes: Buffer, sectors: number) {
    this.bytes = bytes;
    this.#sectors = sectors;
  }

  get(sector: number): boolean {
    return ((this.bytes[sector >>> 3] as number) & (0x80 >>> (sector & 7))) !== 0;
  }

  set(first: number, count: number): void {
    for (let sector = first; sector < first + count; ) {
      if ((sector & 7) === 0 && sector + 8 <= first + count) {
        this.bytes[sector >>> 3] = 0xff;
        sector += 8;
      } else {
        this.bytes[sector >>> 3] = (this.bytes[sector >>> 3] as number) | (0x80 >>> (sector & 7));
        sector += 1;
      }
    }
  }

  /** Whether all sectors of a range are there. */
  has(first: number, count: number): boolean {
    return this.run(first, first + count).count === count && this.get(first);
  }

  get isFull(): boolean {
    return this.has(0, this.#sectors);
  }

  /** The sectors from `first` on, before `end`, that are like the first one. */
  run(first: number, end: number): SectorRun {
    const present = this.get(first);
    const whole = present ? 0xff : 0;
    let sector = first + 1;
    while (sector < end) {
      if ((sector & 7) === 0 && sector + 8 <= end && this.bytes[sector >>> 3] === whole) sector += 8;
      else if (this.get(sector) === present) sector += 1;
      else break;
    }
    return { first, count: sector - first, present };
  }
}
