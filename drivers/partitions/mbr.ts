/**
 * The MBR: four entries in the first sector, and behind an extended one a chain of further sectors (EBR), each with one
 * logical partition and the way to the next.
 *
 *      sector 0:   [ primary | primary | extended ─┐ | primary ]
 *      EBR:                        ┌───────────────┘
 *                  [ logical 5, from here | next, from the start of the extended one ─┐ ]
 *                  [ logical 6, from here | …                 ◄──────────────────────┘
 *
 * What is a table and what is not is decided as the Linux kernel does it (block/partitions/msdos.c), and partitions are
 * numbered as it numbers them. The extended partition itself is a box for others and no disk of its own.
 */
import { fileSystemOf } from './boot-sector.js';
import { type FoundTable, type Partition, type ReadBytes, SECTOR_BYTES, viewOf } from './partition.js';

const ENTRIES_START = 446;
const ENTRY_BYTES = 16;
const EXTENDED_TYPES = [0x05, 0x0f, 0x85];
const PROTECTIVE_TYPE = 0xee;
const FIRST_LOGICAL = 5;
/** a chain that is longer was not made by anybody's tool */
const MAX_LINKS = 128;

interface Entry {
  readonly boot: number;
  readonly type: number;
  /** sectors, from where the table says */
  readonly start: number;
  readonly count: number;
}

/** What the first sector of a disk is. */
export type FirstSector =
  | { readonly kind: 'mbr' | 'protective'; readonly entries: readonly Entry[] }
  | { readonly kind: 'none'; readonly why: string };

/** Judges the first sector, 512 bytes. `protective`: a GPT is to be looked for, whatever else the entries say. */
export function judgeFirstSector(sector: Uint8Array): FirstSector {
  if (!hasSignature(sector)) return { kind: 'none', why: 'there is no partition table' };
  const fileSystem = fileSystemOf(sector);
  if (fileSystem !== null)
    return { kind: 'none', why: `there is no partition table: the disk begins with ${fileSystem}` };
  const entries = entriesOf(sector);
  // the code of a boot loader, or text: in an entry the byte is a flag
  if (entries.some(({ boot }) => boot !== 0 && boot !== 0x80)) {
    return { kind: 'none', why: 'there is no partition table: the disk begins with a boot sector of another kind' };
  }
  return { kind: entries.some(isProtective) ? 'protective' : 'mbr', entries };
}

/** Whether a protective MBR has partitions of its own beside the entry that protects the GPT. */
export function isHybrid(entries: readonly Entry[]): boolean {
  return entries.some((entry) => isUsed(entry) && !isProtective(entry));
}

/** The partitions of an MBR, logical ones too. */
export async function readMbr(entries: readonly Entry[], read: ReadBytes, diskBytes: number): Promise<FoundTable> {
  const found = entries.flatMap((entry, i) =>
    isUsed(entry) && !isExtended(entry) ? [partitionAt(i + 1, entry.start, entry)] : [],
  );
  const notes: string[] = [];
  const logical: Partition[] = [];
  for (const entry of entries.filter((entry) => isUsed(entry) && isExtended(entry))) {
    notes.push(...(await followChain(entry.start, read, diskBytes, logical)));
  }
  return { table: 'mbr', found: [...found, ...logical], notes };
}

/**
 * Follows the chain of an extended partition.
 * @param first the sector that the partition begins at
 * @param logical is added to
 * @returns what was wrong with it, one line each
 */
async function followChain(first: number, read: ReadBytes, diskBytes: number, logical: Partition[]): Promise<string[]> {
  const seen = new Set<number>();
  for (let at = first; ; ) {
    const where = `the extended partition's table in sector ${at}`;
    if (seen.has(at)) return [`${where} comes twice: the chain ends there`];
    if (seen.size === MAX_LINKS)
      return [`the extended partition has more than ${MAX_LINKS} tables: the rest is left out`];
    if ((at + 1) * SECTOR_BYTES > diskBytes) return [`${where} is beyond the end of the disk`];
    seen.add(at);
    const sector = await read(at * SECTOR_BYTES, SECTOR_BYTES);
    if (!hasSignature(sector)) return [`${where} is not one: the chain ends there`];
    const links = entriesOf(sector).filter(isUsed);
    for (const entry of links.filter((entry) => !isExtended(entry)).slice(0, 1)) {
      logical.push(partitionAt(FIRST_LOGICAL + logical.length, at + entry.start, entry));
    }
    const next = links.find(isExtended);
    if (next === undefined) return [];
    at = first + next.start;
  }
}

function partitionAt(number: number, start: number, { count, type }: Entry): Partition {
  const place = { offset: start * SECTOR_BYTES, size: count * SECTOR_BYTES };
  return { number, ...place, type: type.toString(16), name: null };
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

function isUsed({ type, count }: Entry): boolean {
  return type !== 0 && count !== 0;
}

function isExtended({ type }: Entry): boolean {
  return EXTENDED_TYPES.includes(type);
}

function isProtective({ type }: Entry): boolean {
  return type === PROTECTIVE_TYPE;
}
