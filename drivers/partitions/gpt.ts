/**
 * GPT (UEFI 2.10, chapter 5): a header in the second sector and an array of entries, both with a checksum; the same
 * again at the end of the disk, for when the first is broken.
 *
 *      LBA 0           1        2 …                                        last
 *      protective MBR │ header │ entries │ partitions … │ entries (backup) │ header (backup)
 *
 * Sectors have 512 bytes, or 4096 where the image is of such a disk. What a header says is believed only when its
 * checksum and every range in it hold; the array is bounded before it is read.
 */
import { type FoundTable, type Partition, type ReadBytes, SECTOR_BYTES, viewOf } from './partition.js';

const SECTOR_SIZES = [SECTOR_BYTES, 4096];
const SIGNATURE = 'EFI PART';
const MAJOR_REVISION = 1;
const MIN_HEADER_BYTES = 92;
const MIN_ENTRY_BYTES = 128;
const MAX_ENTRY_BYTES = 4096;
/** the usual array has 16 KiB */
const MAX_ARRAY_BYTES = 1 << 20;
const NO_TYPE = '00000000-0000-0000-0000-000000000000';
const NAME_START = 56;
const NAME_BYTES = 72;

interface Header {
  readonly sectorBytes: number;
  /** LBAs; both count */
  readonly firstUsable: number;
  readonly lastUsable: number;
  readonly entryBytes: number;
  readonly array: Uint8Array;
}

/** Where a header may be. */
interface Place {
  readonly sectorBytes: number;
  readonly lba: number;
  readonly isBackup: boolean;
}

/** The partitions of a disk whose first sector says that it has a GPT. `table` is null if no header holds. */
export async function readGpt(read: ReadBytes, diskBytes: number): Promise<FoundTable> {
  let whyNotFirst: string | null = null;
  for (const place of placesOf(diskBytes)) {
    const header = await readHeader(place, read, diskBytes);
    if (typeof header !== 'string') {
      const entries = readEntries(header);
      if (!place.isBackup) return entries;
      return { ...entries, notes: [`the GPT is read from its backup: ${whyNotFirst}`, ...entries.notes] };
    }
    whyNotFirst ??= header;
  }
  const why = whyNotFirst ?? 'the disk is too small for one';
  return { table: null, found: [], notes: [`the disk says that it has a GPT, but none can be read: ${why}`] };
}

/** All first headers come before all backups. */
function placesOf(diskBytes: number): Place[] {
  const disks = SECTOR_SIZES.map((sectorBytes) => ({ sectorBytes, last: Math.floor(diskBytes / sectorBytes) - 1 }));
  const big = disks.filter(({ last }) => last > 1);
  return [
    ...big.map(({ sectorBytes }) => ({ sectorBytes, lba: 1, isBackup: false })),
    ...big.map(({ sectorBytes, last }) => ({ sectorBytes, lba: last, isBackup: true })),
  ];
}

/** The header, or why what is there is none. */
async function readHeader({ sectorBytes, lba }: Place, read: ReadBytes, diskBytes: number): Promise<Header | string> {
  const where = `the header at byte ${lba * sectorBytes}`;
  const sector = await read(lba * sectorBytes, sectorBytes);
  const view = viewOf(sector);
  if (latin1(sector, 0, 8) !== SIGNATURE) return `there is no header at byte ${lba * sectorBytes}`;
  const headerBytes = view.getUint32(12, true);
  if (headerBytes < MIN_HEADER_BYTES || headerBytes > sectorBytes)
    return `${where} says that it has ${headerBytes} bytes`;
  const checksum = await checksumOf(sector.subarray(0, headerBytes));
  if (checksum !== view.getUint32(16, true)) return `${where} has a wrong checksum`;
  if (view.getUint32(8, true) >>> 16 !== MAJOR_REVISION) return `${where} is of a revision that is not 1.x`;
  const lastLba = Math.floor(diskBytes / sectorBytes) - 1;
  if (lbaAt(view, 24) !== lba) return `${where} says that it is elsewhere`;
  const [firstUsable, lastUsable] = [lbaAt(view, 40), lbaAt(view, 48)];
  if (firstUsable > lastUsable || lastUsable > lastLba) {
    return `${where} has room for partitions from sector ${firstUsable} to ${lastUsable}, of ${lastLba + 1}`;
  }
  const array = await readArray(view, { sectorBytes, diskBytes }, read);
  if (typeof array === 'string') return `${where} ${array}`;
  return { sectorBytes, firstUsable, lastUsable, entryBytes: view.getUint32(84, true), array };
}

async function readArray(
  view: DataView,
  { sectorBytes, diskBytes }: { sectorBytes: number; diskBytes: number },
  read: ReadBytes,
): Promise<Uint8Array | string> {
  const [start, count, entryBytes] = [
    lbaAt(view, 72) * sectorBytes,
    view.getUint32(80, true),
    view.getUint32(84, true),
  ];
  const isEntrySize =
    entryBytes >= MIN_ENTRY_BYTES && entryBytes <= MAX_ENTRY_BYTES && entryBytes % MIN_ENTRY_BYTES === 0;
  if (!isEntrySize) return `has entries of ${entryBytes} bytes`;
  const length = count * entryBytes;
  if (count === 0 || length > MAX_ARRAY_BYTES) return `has ${count} entries`;
  if (start + length > diskBytes) return 'has entries beyond the end of the disk';
  const array = await read(start, length);
  return (await crc32(array)) === view.getUint32(88, true) ? array : 'has entries with a wrong checksum';
}

/** CRC-32 as zlib has it. Loaded with the first GPT: zlib takes a megabyte in each process that has it. */
async function crc32(bytes: Uint8Array): Promise<number> {
  return (await import('node:zlib')).crc32(bytes);
}

/** The checksum of a header is made with 0 in its own place. */
function checksumOf(header: Uint8Array): Promise<number> {
  const copy = Uint8Array.from(header);
  copy.fill(0, 16, 20);
  return crc32(copy);
}

/** The entries in use; those that lie where no partition may be are noted. */
function readEntries({ array, entryBytes, sectorBytes, firstUsable, lastUsable }: Header): FoundTable {
  const found: Partition[] = [];
  const notes: string[] = [];
  for (let at = 0; at < array.byteLength; at += entryBytes) {
    const entry = array.subarray(at, at + entryBytes);
    const view = viewOf(entry);
    const [number, type] = [at / entryBytes + 1, guidAt(view, 0)];
    if (type === NO_TYPE) continue;
    const [first, last] = [lbaAt(view, 32), lbaAt(view, 40)];
    if (first < firstUsable || last > lastUsable || first > last) {
      notes.push(
        `partition ${number} is left out: sectors ${first} to ${last} are not within ${firstUsable} to ${lastUsable}`,
      );
      continue;
    }
    found.push({
      number,
      offset: first * sectorBytes,
      size: (last - first + 1) * sectorBytes,
      type,
      name: nameOf(entry),
    });
  }
  return { table: 'gpt', found, notes };
}

/** A GUID as it is written: its first three fields are little-endian. */
function guidAt(view: DataView, at: number): string {
  const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');
  const byte = (i: number): string => hex(view.getUint8(at + i), 2);
  const fields = [
    hex(view.getUint32(at, true), 8),
    hex(view.getUint16(at + 4, true), 4),
    hex(view.getUint16(at + 6, true), 4),
    byte(8) + byte(9),
    [10, 11, 12, 13, 14, 15].map(byte).join(''),
  ];
  return fields.join('-').toUpperCase();
}

function nameOf(entry: Uint8Array): string | null {
  // an odd surrogate becomes U+FFFD: what is printed as JSON must be Unicode
  const text = new TextDecoder('utf-16le', { ignoreBOM: true }).decode(
    entry.subarray(NAME_START, NAME_START + NAME_BYTES),
  );
  const [name = ''] = text.split('\0');
  return name === '' ? null : name;
}

/** A sector's number. Those above 2^53 lose digits, and lie outside every disk all the same. */
function lbaAt(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
}

function latin1(bytes: Uint8Array, from: number, to: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1', from, to);
}
