/**
 * The metadata region, little-endian: a table of 64 KiB, then the items.
 *
 *       0  8  `metadata`      entries of 32 bytes from byte 32:
 *      10  2  entries         16 guid   4 offset   4 bytes   4 flags: bit 0 of a user, 1 of the disk, 2 required
 *
 * A required item that is not known makes the image unreadable.
 */
import { broken, unsupported } from '../formats/faults.js';
import type { Range } from '../map/disk-map.js';
import { GUID_BYTES, guidAt } from './guid.js';
import { type ParentLocator, parseLocator } from './parent-locator.js';
import type { ReplayedImage } from './replayed-image.js';

const MIB = 1 << 20;
const TABLE_BYTES = 64 << 10;
const ENTRIES_AT = 32;
const ENTRY_BYTES = 32;
const MOST_ENTRIES = 2047;
const MOST_ITEM_BYTES = MIB;
const IS_USER = 1;
const IS_REQUIRED = 4;

const PARAMETERS = 'caa16737-fa36-4d43-b3b6-33f0aa44e76b';
const SIZE = '2fa54224-cd1b-4876-b211-5dbed83bf4b8';
const LOGICAL_SECTOR = '8141bf1d-a96f-4709-ba47-f233a8faab5f';
const PHYSICAL_SECTOR = 'cda348c7-445d-4471-9cc9-e9885251c556';
const PAGE_83 = 'beca12ab-b2e6-4523-93ef-c309e000c746';
const PARENT_LOCATOR = 'a8d35f2d-b30b-454d-abf7-d3d84834ab0c';
const KNOWN = [PARAMETERS, SIZE, LOGICAL_SECTOR, PHYSICAL_SECTOR, PAGE_83, PARENT_LOCATOR];

const LEAVE_ALLOCATED = 1;
const HAS_PARENT = 2;
const MOST_BLOCK_BYTES = 256 * MIB;
const MOST_SIZE = 2 ** 46;

export interface Metadata {
  /** of the disk */
  readonly size: number;
  readonly blockBytes: number;
  readonly logicalSectorBytes: number;
  readonly physicalSectorBytes: number;
  /** the image has all blocks from the start */
  readonly isFixed: boolean;
  /** null: the image has no parent */
  readonly parent: ParentLocator | null;
}

/** @throws FusetapError FAILED it is damaged; UNSUPPORTED it needs an item that is not known */
export async function readMetadata(image: ReplayedImage, region: Range): Promise<Metadata> {
  const items = await readItems(image, region);
  const parameters = wholeItem(items, PARAMETERS, 'file parameters', 8);
  const flags = parameters.readUInt32LE(4);
  const logicalSectorBytes = sectorSize(items, LOGICAL_SECTOR, 'logical');
  return {
    blockBytes: blockSize(parameters.readUInt32LE(0)),
    size: diskSize(wholeItem(items, SIZE, 'size', 8).readBigUInt64LE(0), logicalSectorBytes),
    logicalSectorBytes,
    physicalSectorBytes: sectorSize(items, PHYSICAL_SECTOR, 'physical'),
    isFixed: (flags & LEAVE_ALLOCATED) !== 0,
    parent: (flags & HAS_PARENT) !== 0 ? parseLocator(wholeItem(items, PARENT_LOCATOR, 'parent locator')) : null,
  };
}

/** The known items, by their guids. */
async function readItems(image: ReplayedImage, region: Range): Promise<Map<string, Buffer>> {
  const table = await image.readAt(region.offset, TABLE_BYTES);
  if (table.toString('latin1', 0, 8) !== 'metadata') throw broken('VHDX', 'its metadata does not say `metadata`');
  const count = table.readUInt16LE(10);
  if (count > MOST_ENTRIES) throw broken('VHDX', `its metadata has ${count} items, above ${MOST_ENTRIES}`);
  const items = new Map<string, Buffer>();
  for (let i = 0; i < count; i++) {
    const at = ENTRIES_AT + i * ENTRY_BYTES;
    const guid = guidAt(table, at);
    const [offset, length] = [table.readUInt32LE(at + GUID_BYTES), table.readUInt32LE(at + 20)];
    const flags = table.readUInt32LE(at + 24);
    const isKnown = (flags & IS_USER) === 0 && KNOWN.includes(guid);
    if (!isKnown && (flags & IS_REQUIRED) !== 0) {
      throw unsupported(`it needs the metadata item ${guid}, which is not known here`);
    }
    if (!isKnown) continue;
    if (items.has(guid)) throw broken('VHDX', `its metadata has the item ${guid} twice`);
    if (length > MOST_ITEM_BYTES || (length > 0 && offset < TABLE_BYTES) || offset + length > region.length) {
      throw broken('VHDX', `its metadata item ${guid} has ${length} bytes at byte ${offset} of the region`);
    }
    items.set(guid, await image.readAt(region.offset + offset, length));
  }
  return items;
}

function wholeItem(items: ReadonlyMap<string, Buffer>, guid: string, name: string, bytes = 1): Buffer {
  const item = items.get(guid);
  if (item !== undefined && item.length >= bytes) return item;
  throw broken('VHDX', `its metadata has no ${name}${item === undefined ? '' : `: ${item.length} bytes are too few`}`);
}

function blockSize(bytes: number): number {
  if (bytes >= MIB && bytes <= MOST_BLOCK_BYTES && (bytes & (bytes - 1)) === 0) return bytes;
  throw broken('VHDX', `its blocks have ${bytes} bytes, which is no power of two from 1 to 256 MiB`);
}

function sectorSize(items: ReadonlyMap<string, Buffer>, guid: string, name: string): number {
  const bytes = wholeItem(items, guid, `${name} sector size`, 4).readUInt32LE(0);
  if (bytes === 512 || bytes === 4096) return bytes;
  throw broken('VHDX', `its ${name} sectors have ${bytes} bytes, not 512 or 4096`);
}

function diskSize(bytes: bigint, sectorBytes: number): number {
  if (bytes > 0n && bytes <= BigInt(MOST_SIZE) && bytes % BigInt(sectorBytes) === 0n) return Number(bytes);
  throw broken('VHDX', `its disk has ${bytes} bytes, which are not 1 byte to 64 TiB of whole sectors`);
}
