/**
 * The first MiB of a VHDX, little-endian. Two copies of the header are at 64 and 128 KiB:
 *
 *       0  8  `vhdxfile`, the file identifier; then 512 bytes: its creator, in UTF-16
 *
 *       0  4  `head`                                 48  16  LogGuid; zeros: the log is empty
 *       4  4  CRC-32C of the 4 KiB of the header     64   2  version of the log, 0
 *       8  8  sequence number                        66   2  version, 1
 *      16 16  FileWriteGuid                          68   4  bytes of the log
 *      32 16  DataWriteGuid                          72   8  where the log begins
 *
 * A program that opens the image for writing updates the older copy, so the valid one with the higher sequence number counts.
 */
import type { Disk } from '../disk.js';
import { broken, unsupported } from '../formats/faults.js';
import { readUpTo } from '../formats/read.js';
import { wrongFormat } from '../formats/wrong-format.js';
import { hasRightChecksum } from './crc32c.js';
import { guidAt, NO_GUID } from './guid.js';

const MIB = 1 << 20;
const IDENTIFIER_BYTES = 520;
const HEADER_BYTES = 4096;
const HEADERS_AT = [64 << 10, 128 << 10] as const;
const VERSION = 1;
const LOG_VERSION = 0;

export interface VhdxHeader {
  /** the program that made the image; hostile input */
  readonly creator: string;
  /** changes when the bytes of the disk change */
  readonly dataWriteGuid: string;
  readonly log: LogPlace;
}

export interface LogPlace {
  /** null: the log is empty */
  readonly guid: string | null;
  readonly offset: number;
  readonly length: number;
}

/** @throws FusetapError USAGE not a VHDX; UNSUPPORTED another version; FAILED no header is valid */
export async function readHeader(image: Disk): Promise<VhdxHeader> {
  const identifier = await readUpTo(image, 0, IDENTIFIER_BYTES);
  if (identifier.length < IDENTIFIER_BYTES || identifier.toString('latin1', 0, 8) !== 'vhdxfile') {
    throw await wrongFormat(image, 'a VHDX image');
  }
  const copies = await Promise.all(HEADERS_AT.map((at) => readUpTo(image, at, HEADER_BYTES)));
  const header = currentOf(copies.filter(isValid));
  const version = header.readUInt16LE(66);
  if (version !== VERSION) throw unsupported(`it is a VHDX of version ${version}, not ${VERSION}`);
  const creator = identifier.toString('utf16le', 8).replace(/\0.*$/s, '');
  return { creator, dataWriteGuid: guidAt(header, 32), log: logPlace(header) };
}

function isValid(header: Buffer): boolean {
  return header.length === HEADER_BYTES && header.toString('latin1', 0, 4) === 'head' && hasRightChecksum(header);
}

function currentOf([first, second]: readonly Buffer[]): Buffer {
  if (first === undefined) throw broken('VHDX', 'neither of its headers has the right checksum');
  if (second === undefined) return first;
  const [one, two] = [first.readBigUInt64LE(8), second.readBigUInt64LE(8)];
  // Disk2VHD writes the same header twice
  if (one === two && !first.equals(second)) {
    throw broken('VHDX', `its two headers differ, and both have the sequence number ${one}`);
  }
  return one >= two ? first : second;
}

function logPlace(header: Buffer): LogPlace {
  const guid = guidAt(header, 48);
  const [length, offset] = [header.readUInt32LE(68), Number(header.readBigUInt64LE(72))];
  const version = header.readUInt16LE(64);
  if (guid !== NO_GUID && version !== LOG_VERSION) {
    throw unsupported(`the log of the VHDX has version ${version}, not ${LOG_VERSION}`);
  }
  if (length % MIB !== 0 || offset % MIB !== 0 || (length > 0 && offset === 0)) {
    throw broken('VHDX', `its log has ${length} bytes from byte ${offset} on, which are no multiples of 1 MiB`);
  }
  return { guid: guid === NO_GUID ? null : guid, offset, length };
}
