/**
 * An entry of the log, little-endian. It is whole sectors of 4 KiB in a ring, so it may go on at the start of the log:
 *
 *      first sector   0  4  `loge`                      24  4  descriptors
 *                     4  4  CRC-32C of the entry        32 16  LogGuid of the header
 *                     8  4  bytes of the entry          48  8  FlushedFileOffset: the least size of the file
 *                    12  4  tail: byte of the log where the oldest entry begins that is needed
 *                    16  8  sequence number             56  8  LastFileOffset: the size of the file after a replay
 *      from byte 64   descriptors of 32 bytes, also in the next sectors:
 *                     `desc`: 4 last and 8 first bytes of a page, 8 its offset in the file, 8 sequence number
 *                     `zero`: 4 unused, 8 bytes of a range, 8 its offset in the file, 8 sequence number
 *      data sectors   one for each `desc`: `data`, 4 high part of the sequence number, 4084 bytes, 4 low part
 *
 * No sector but the first says `loge`. So entries cannot nest, and the work for a whole log is one pass over it.
 */
import { broken } from '../formats/faults.js';
import { crc32c, structureChecksum } from './crc32c.js';
import { guidAt } from './guid.js';

export const SECTOR_BYTES = 4096;
const HEAD_BYTES = 64;
const DESCRIPTOR_BYTES = 32;
const signature = (word: string): number => Buffer.from(word, 'latin1').readUInt32LE(0);
const ENTRY = signature('loge');
const DATA_DESCRIPTOR = signature('desc');
const ZERO_DESCRIPTOR = signature('zero');
const DATA = signature('data');

/** An entry whose checksum is right. Places in the log are counted in sectors. */
export interface LogEntry {
  readonly first: number;
  readonly sectors: number;
  readonly tail: number;
  readonly sequence: bigint;
  readonly descriptors: number;
  readonly flushedBytes: bigint;
  readonly lastBytes: bigint;
}

/** A change that a replay makes in the image. Offsets and lengths are multiples of 4 KiB. */
export interface LogChange {
  readonly offset: number;
  readonly length: number;
  /** null: zeros */
  readonly bytes: Buffer | null;
}

/** The log in memory: a ring of sectors. */
export class LogRing {
  readonly sectors: number;
  readonly #bytes: Buffer;

  /** @param bytes whole sectors, at least one */
  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    this.sectors = bytes.length / SECTOR_BYTES;
  }

  /** @param index may be above the number of sectors */
  sector(index: number): Buffer {
    const at = (index % this.sectors) * SECTOR_BYTES;
    return this.#bytes.subarray(at, at + SECTOR_BYTES);
  }

  /** The entry that begins at a sector; null if there is none that is valid. */
  entryAt(first: number, guid: string): LogEntry | null {
    const head = this.sector(first);
    if (head.readUInt32LE(0) !== ENTRY || guidAt(head, 32) !== guid) return null;
    const [bytes, tail] = [head.readUInt32LE(8), head.readUInt32LE(12)];
    const entry: LogEntry = {
      first,
      sectors: bytes / SECTOR_BYTES,
      tail: tail / SECTOR_BYTES,
      sequence: head.readBigUInt64LE(16),
      descriptors: head.readUInt32LE(24),
      flushedBytes: head.readBigUInt64LE(48),
      lastBytes: head.readBigUInt64LE(56),
    };
    const isInRing = bytes % SECTOR_BYTES === 0 && bytes > 0 && entry.sectors <= this.sectors;
    const hasTail = tail % SECTOR_BYTES === 0 && entry.tail < this.sectors;
    if (!isInRing || !hasTail || entry.sequence === 0n) return null;
    return this.#isWhole(entry) && this.#hasRightChecksum(entry) ? entry : null;
  }

  /** Whether its sectors are of the kinds that it needs. It stops at the next entry, so it is cheap. */
  #isWhole(entry: LogEntry): boolean {
    const { first, sectors, descriptors, sequence } = entry;
    const tables = tableSectors(entry);
    if (tables > sectors) return false;
    for (let i = 1; i < sectors; i++) {
      const sector = this.sector(first + i);
      const kind = sector.readUInt32LE(0);
      if (i < tables && kind !== DATA_DESCRIPTOR && kind !== ZERO_DESCRIPTOR) return false;
      if (i >= tables && (kind !== DATA || sequenceOfData(sector) !== sequence)) return false;
    }
    let pages = 0;
    for (let i = 0; i < descriptors; i++) {
      const descriptor = this.#descriptor(entry, i);
      const kind = descriptor.readUInt32LE(0);
      if (kind !== DATA_DESCRIPTOR && kind !== ZERO_DESCRIPTOR) return false;
      if (descriptor.readBigUInt64LE(24) !== sequence) return false;
      if (kind === DATA_DESCRIPTOR) pages += 1;
    }
    return pages === sectors - tables;
  }

  #hasRightChecksum({ first, sectors }: LogEntry): boolean {
    const head = this.sector(first);
    let checksum = structureChecksum(head);
    for (let i = 1; i < sectors; i++) checksum = crc32c(this.sector(first + i), checksum);
    return checksum === head.readUInt32LE(4);
  }

  #descriptor({ first }: LogEntry, index: number): Buffer {
    const at = HEAD_BYTES + index * DESCRIPTOR_BYTES;
    const inSector = at % SECTOR_BYTES;
    return this.sector(first + (at - inSector) / SECTOR_BYTES).subarray(inSector, inSector + DESCRIPTOR_BYTES);
  }

  /**
   * The changes of a valid entry, in their order. Pages are the data sectors themselves, whose first and last bytes are put
   * back: an entry can be asked only once.
   * @throws FusetapError FAILED if a change is not of whole pages
   */
  *changesOf(entry: LogEntry): Generator<LogChange> {
    let page = entry.first + tableSectors(entry);
    for (let i = 0; i < entry.descriptors; i++) {
      const descriptor = this.#descriptor(entry, i);
      const offset = pages(descriptor.readBigUInt64LE(16));
      if (descriptor.readUInt32LE(0) === ZERO_DESCRIPTOR) {
        const length = pages(descriptor.readBigUInt64LE(8));
        pages(BigInt(offset) + BigInt(length));
        if (length > 0) yield { offset, length, bytes: null };
        continue;
      }
      const bytes = this.sector(page++);
      descriptor.copy(bytes, 0, 8, 16);
      descriptor.copy(bytes, SECTOR_BYTES - 4, 4, 8);
      pages(BigInt(offset + SECTOR_BYTES));
      yield { offset, length: SECTOR_BYTES, bytes };
    }
  }
}

function tableSectors({ descriptors }: LogEntry): number {
  return Math.ceil((HEAD_BYTES + descriptors * DESCRIPTOR_BYTES) / SECTOR_BYTES);
}

function sequenceOfData(sector: Buffer): bigint {
  return BigInt(sector.readUInt32LE(4)) * 2n ** 32n + BigInt(sector.readUInt32LE(SECTOR_BYTES - 4));
}

/** A number of bytes that are whole pages. */
function pages(bytes: bigint): number {
  if (bytes % BigInt(SECTOR_BYTES) === 0n && bytes <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(bytes);
  throw broken('VHDX', `an entry of its log has the number ${bytes}, which is no place for whole pages`);
}
