/**
 * The data of the writer. Each sector contains its disk, block and generation, so that an old, misplaced or torn sector
 * is recognised.
 *
 *      0      magic       16   generation (counts the writes of this block)
 *      8      disk        24   sector within the block
 *      12     block       32   eight bytes made from all of these, again and again
 */

export const BLOCK_BYTES = 4096;
export const SECTOR_BYTES = 512;
const SECTORS = BLOCK_BYTES / SECTOR_BYTES;
const MAGIC = 0x46545453;

export interface Place {
  readonly disk: number;
  readonly block: number;
}

/** Fills one block of the buffer. Generation 0 is a block that was never written: zeros. */
export function fillBlock(buffer: Buffer, place: Place, generation: number): void {
  buffer.fill(0, 0, BLOCK_BYTES);
  if (generation === 0) return;
  for (let sector = 0; sector < SECTORS; sector++) {
    const at = sector * SECTOR_BYTES;
    buffer.writeUInt32LE(MAGIC, at);
    buffer.writeUInt32LE(place.disk, at + 8);
    buffer.writeUInt32LE(place.block, at + 12);
    buffer.writeUInt32LE(generation, at + 16);
    buffer.writeUInt32LE(sector, at + 24);
    const mixed = Math.imul(generation * 31 + place.block, 0x9e3779b1) ^ Math.imul(sector + place.disk * 8, 0x85ebca6b);
    buffer.writeInt32LE(mixed, at + 32);
    buffer.writeInt32LE(~mixed, at + 36);
    buffer.copyWithin(at + 40, at + 32, at + 40);
    for (let have = 16; have < SECTOR_BYTES - 32; have *= 2) {
      buffer.copyWithin(at + 32 + have, at + 32, at + 32 + Math.min(have, SECTOR_BYTES - 32 - have));
    }
  }
}

const expected = Buffer.alloc(BLOCK_BYTES);

/**
 * Compares one block with the generations that each of its sectors may have.
 * @returns null if it is right, else what is wrong
 */
export function compareBlock(found: Buffer, place: Place, allowed: readonly number[]): string | null {
  fillBlock(expected, place, allowed[0] ?? 0);
  if (found.equals(expected)) return null;
  for (let sector = 0; sector < SECTORS; sector++) {
    const part = found.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
    const isAllowed = allowed.some((generation) => {
      fillBlock(expected, place, generation);
      return part.equals(expected.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES));
    });
    if (!isAllowed) return `block ${place.block} sector ${sector} has ${describe(part)}, not generation ${allowed}`;
  }
  return null;
}

/** The generation of all sectors of a block; or what is wrong, if they differ or belong to another block. */
export function generationOf(found: Buffer, place: Place): number | string {
  const generation = found.readUInt32LE(0) === MAGIC ? found.readUInt32LE(16) : 0;
  fillBlock(expected, place, generation);
  return found.equals(expected) ? generation : (compareBlock(found, place, [generation]) ?? 'nothing');
}

function describe(sector: Buffer): string {
  if (sector.every((byte) => byte === 0)) return 'zeros';
  if (sector.readUInt32LE(0) !== MAGIC) return `strange bytes ${sector.subarray(0, 16).toString('hex')}`;
  const [disk, block, generation] = [8, 12, 16].map((at) => sector.readUInt32LE(at));
  return `generation ${generation} of block ${block} of disk ${disk}`;
}
