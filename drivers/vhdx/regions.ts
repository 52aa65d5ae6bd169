/**
 * The region table: where the BAT and the metadata are. Two copies of 64 KiB are at 192 and 256 KiB, little-endian:
 *
 *       0  4  `regi`                 entries of 32 bytes from byte 16:
 *       4  4  CRC-32C of 64 KiB      16 guid   8 offset   4 bytes   4 bit 0: who does not know it must refuse the image
 *       8  4  entries
 */
import { broken, unsupported } from '../formats/faults.js';
import type { Range } from '../map/disk-map.js';
import { hasRightChecksum } from './crc32c.js';
import { GUID_BYTES, guidAt } from './guid.js';
import type { LogPlace } from './header.js';
import type { ReplayedImage } from './replayed-image.js';

const MIB = 1 << 20;
const TABLES_AT = [192 << 10, 256 << 10] as const;
const TABLE_BYTES = 64 << 10;
const ENTRIES_AT = 16;
const ENTRY_BYTES = 32;
const MOST_ENTRIES = 2047;
const BAT = '2dc27766-f623-4200-9d64-115e9bfd4a08';
const METADATA = '8b7ca206-4790-4b9a-b8fe-575f050f886e';
/** the header section has the first MiB */
const HEADERS: Area = { offset: 0, length: MIB, is: 'headers' };

/** A part of the image that is not data. */
export interface Area extends Range {
  readonly is: string;
}

export interface Regions {
  readonly bat: Range;
  readonly metadata: Range;
  /** all parts of the image that are not data, in order, without overlaps */
  readonly areas: readonly Area[];
}

/** @throws FusetapError FAILED it is damaged; UNSUPPORTED it needs a region that is not known */
export async function readRegions(image: ReplayedImage, { offset, length }: LogPlace): Promise<Regions> {
  const tables = await Promise.all(TABLES_AT.map((at) => image.readAt(at, TABLE_BYTES)));
  const table = tables.find((each) => each.toString('latin1', 0, 4) === 'regi' && hasRightChecksum(each));
  if (table === undefined) throw broken('VHDX', 'neither of its region tables has the right checksum');
  const regions = parseTable(table, image.size);
  const [bat, metadata] = [regions.get(BAT), regions.get(METADATA)];
  if (bat === undefined || metadata === undefined) {
    throw broken('VHDX', `its region table names no ${bat === undefined ? 'block table (BAT)' : 'metadata'}`);
  }
  const log = length > 0 ? [{ offset, length, is: 'log' }] : [];
  return { bat, metadata, areas: inOrder([HEADERS, ...log, ...regions.values()]) };
}

/** By their guids. */
function parseTable(table: Buffer, imageBytes: number): Map<string, Area> {
  const count = table.readUInt32LE(8);
  if (count > MOST_ENTRIES) throw broken('VHDX', `its region table has ${count} entries, above ${MOST_ENTRIES}`);
  const regions = new Map<string, Area>();
  for (let i = 0; i < count; i++) {
    const at = ENTRIES_AT + i * ENTRY_BYTES;
    const guid = guidAt(table, at);
    const offset = Number(table.readBigUInt64LE(at + GUID_BYTES));
    const [length, flags] = [table.readUInt32LE(at + 24), table.readUInt32LE(at + 28)];
    const isKnown = guid === BAT || guid === METADATA;
    if (!isKnown && (flags & 1) !== 0) throw unsupported(`it needs the region ${guid}, which is not known here`);
    if (regions.has(guid)) throw broken('VHDX', `its region table names the region ${guid} twice`);
    if (offset % MIB !== 0 || length % MIB !== 0 || length === 0) {
      throw broken('VHDX', `its region ${guid} has ${length} bytes from byte ${offset} on, which are no MiB`);
    }
    if (offset + length > imageBytes) {
      throw broken('VHDX', `its region ${guid} ends at byte ${offset + length}, and the file at byte ${imageBytes}`);
    }
    regions.set(guid, { offset, length, is: `region ${guid}` });
  }
  return regions;
}

/** @throws FusetapError FAILED if two overlap */
function inOrder(areas: Area[]): Area[] {
  areas.sort((a, b) => a.offset - b.offset);
  for (const [i, { offset, is }] of areas.entries()) {
    const before = areas[i - 1];
    if (before === undefined || before.offset + before.length <= offset) continue;
    throw broken('VHDX', `its ${before.is} and its ${is} overlap at byte ${offset}`);
  }
  return areas;
}
