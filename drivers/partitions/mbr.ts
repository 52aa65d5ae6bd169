/**
 * The MBR: four entries in the first sector. An extended entry leads to a chain of further sectors (EBR), each with one
 * logical partition and a link to the next.
 *
 *      sector 0:   [ primary | primary | extended ─┐ | primary ]
 *      EBR:                        ┌───────────────┘
 *                  [ logical 5, from here | next, from the start of the extended one ─┐ ]
 *                  [ logical 6, from here | …                 ◄──────────────────────┘
 *
 * A sector counts as a table by the same rules as in the Linux kernel (block/partitions/msdos.c), and partitions have
 * the same numbers: an entry with sectors is a partition, also with type 0. The extended partition itself only contains
 * others and is not shown as a disk. Entries count in sectors of the disk, usually 512 bytes.
 */
import { fileSystemOf } from './boot-sector.js';
import { hasBsdLabel } from './foreign-tables.js';
import { type FoundPartition, type FoundTable, SECTOR_BYTES, type TableDisk, viewOf } from './partition.js';

const ENTRIES_START = 446;
const ENTRY_BYTES = 16;
const DISK_NUMBER_AT = 440;
const EXTENDED_TYPES = [0x05, 0x0f, 0x85];
const PROTECTIVE_TYPE = 0xee;
/** FreeBSD, OpenBSD, NetBSD: such a slice has a table of its own */
const BSD_TYPES = [0xa5, 0xa6, 0xa9];
const FIRST_LOGICAL = 5;
/** no tool makes a longer chain */
const MAX_LINKS = 128;

interface Entry {
  readonly boot: number;
  readonly type: number;
  /** sectors; relative to the MBR, the EBR or the extended partition, as drawn above */
  readonly start: number;
  readonly count: number;
}

/** The kind of the first sector of a disk, with its entries. */
export type FirstSector =
  | { readonly kind: 'mbr' | 'protective'; readonly entries: readonly Entry[] }
  | { readonly kind: 'none'; readonly why: string };

/**
 * Finds out the kind of the first sector. `protective`: look for a GPT, whatever else the entries contain.
 * @param sector its first 512 bytes
 * @param diskSectors the size of the disk
 */
export function judgeFirstSector(sector: Uint8Array, diskSectors: number): FirstSector {
  if (!hasSignature(sector)) return { kind: 'none', why: 'there is no partition table' };
  const entries = entriesOf(sector);
  // in an entry this byte is a flag: any other value is text, or the code of a boot loader
  const areFlags = entries.every(({ boot }) => boot === 0 || boot === 0x80);
  const fileSystem = fileSystemOf(sector);
  if (fileSystem !== null && !(areFlags && isTableBeside(entries, diskSectors))) {
    return { kind: 'none', why: `there is no partition table: the disk begins with ${fileSystem}` };
  }
  if (!areFlags) {
    return { kind: 'none', why: 'there is no partition table: the disk begins with a boot sector of another kind' };
  }
  return { kind: entries.some(isProtective) ? 'protective' : 'mbr', entries };
}

/**
 * Whether entries beside the parameters of a file system are a table: a disk that had a file system got a table later,
 * and tools leave the first 446 bytes as they are. mkfs.fat and mformat also write an entry, but one for the whole
 * disk, which starts at sector 0.
 */
function isTableBeside(entries: readonly Entry[], diskSectors: number): boolean {
  const used = entries.filter(isUsed);
  return used.length > 0 && used.every(({ type, start }) => type !== 0 && start > 0 && start < diskSectors);
}

/** Whether a protective MBR has other partitions besides the entry that protects the GPT. */
export function isHybrid(entries: readonly Entry[]): boolean {
  return entries.some((entry) => isUsed(entry) && !isProtective(entry));
}

/** An MBR counts in sectors of 512 bytes if nothing else is said: it has no field for another size. */
export function unitOf({ sectorBytes }: TableDisk): number {
  return sectorBytes ?? SECTOR_BYTES;
}

/** The partitions with their PARTUUIDs, which an MBR does not store: libblkid makes them from the number of the disk. */
export function withUuids(found: FoundTable, sector: Uint8Array): FoundTable {
  const disk = viewOf(sector).getUint32(DISK_NUMBER_AT, true);
  if (disk === 0) return found;
  const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');
  return {
    ...found,
    found: found.found.map((each) => ({ ...each, uuid: `${hex(disk, 8)}-${hex(each.number, 2)}` })),
  };
}

/** The partitions of an MBR, including logical ones. */
export async function readMbr(entries: readonly Entry[], disk: TableDisk): Promise<FoundTable> {
  const unit = unitOf(disk);
  const found = entries.flatMap((entry, i) =>
    isUsed(entry) && !isExtended(entry) ? [partitionAt(i + 1, entry.start, entry, unit)] : [],
  );
  const notes: string[] = [];
  const logical: FoundPartition[] = [];
  for (const entry of entries.filter((entry) => isUsed(entry) && isExtended(entry))) {
    notes.push(...(await followChain(entry.start, disk, logical)));
  }
  for (const [i, { type, start }] of entries.entries()) {
    if (!BSD_TYPES.includes(type) || !(await hasBsdLabel(disk, (start + 1) * unit))) continue;
    notes.push(`partition ${i + 1} has a BSD label, which fusetap does not read: the partitions in it are not shown`);
  }
  return { table: 'mbr', found: [...found, ...logical], notes };
}

/**
 * Follows the chain of an extended partition.
 * @param first the first sector of the extended partition
 * @param logical the partitions found are added to it
 * @returns the faults found, one line each
 */
async function followChain(first: number, disk: TableDisk, logical: FoundPartition[]): Promise<string[]> {
  const unit = unitOf(disk);
  const seen = new Set<number>();
  for (let at = first; ; ) {
    const where = `the extended partition's table in sector ${at}`;
    if (seen.has(at)) return [`${where} is linked twice: the chain ends there`];
    if (seen.size === MAX_LINKS)
      return [`the extended partition has more than ${MAX_LINKS} tables: the rest is left out`];
    if ((at + 1) * unit > disk.diskBytes) return [`${where} is beyond the end of the disk`];
    seen.add(at);
    const sector = await disk.read(at * unit, SECTOR_BYTES);
    if (!hasSignature(sector)) return [`${where} is not a table: the chain ends there`];
    const links = entriesOf(sector).filter(isUsed);
    for (const entry of links.filter((entry) => !isExtended(entry)).slice(0, 1)) {
      logical.push(partitionAt(FIRST_LOGICAL + logical.length, at + entry.start, entry, unit));
    }
    const next = links.find(isExtended);
    if (next === undefined) return [];
    at = first + next.start;
  }
}

function partitionAt(number: number, start: number, { count, type }: Entry, unit: number): FoundPartition {
  return { number, offset: start * unit, size: count * unit, type: type.toString(16), name: null, uuid: null };
}

function hasSignature(sector: Uint8Array): boolean {
  return sector[510] === 0x55 && sector[511] === 0xaa;
}

function entriesOf(sector: Uint8Array): Entry[] {
  const view = viewOf(sector);
  return [0, 1, 2, 3].map((i) => {
    const at = ENTRIES_START + i * ENTRY_BYTES;
    return {
      boot: view.getUint8(at),
      type: view.getUint8(at + 4),
      start: view.getUint32(at + 8, true),
      count: view.getUint32(at + 12, true),
    };
  });
}

function isUsed({ count }: Entry): boolean {
  return count !== 0;
}

function isExtended({ type }: Entry): boolean {
  return EXTENDED_TYPES.includes(type);
}

function isProtective({ type }: Entry): boolean {
  return type === PROTECTIVE_TYPE;
}
