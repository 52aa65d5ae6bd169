/**
 * GPT (UEFI 2.10, chapter 5): a header in the second sector and an array of entries, both with a checksum. A backup of
 * both is at the end of the disk.
 *
 *      LBA 0           1        2 …                                        last
 *      protective MBR │ header │ entries │ partitions … │ entries (backup) │ header (backup)
 *
 * Sectors have the size of those of the disk that the image comes from: the place of the header tells which. A header
 * is used only if its checksum and every range in it are valid. The size of the array is checked before the array is
 * read. If neither header is valid, a first header is used that is valid but for the end of the disk: the disk was cut.
 */
import { type FoundPartition, type FoundTable, SECTOR_SIZES, type TableDisk, viewOf } from './partition.js';

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
  /** LBAs, inclusive */
  readonly firstUsable: number;
  readonly lastUsable: number;
  readonly entryBytes: number;
  readonly array: Uint8Array;
}

/** A place that may contain a header, and whether it may be the header of a larger disk. */
interface Place {
  readonly sectorBytes: number;
  readonly lba: number;
  readonly kind: 'first' | 'backup' | 'first, of a larger disk';
}

/** The partitions of a disk with a protective MBR. `table` is null if no header is valid. */
export async function readGpt(disk: TableDisk): Promise<FoundTable> {
  let whyNot: string | null = null;
  for (const place of placesOf(disk)) {
    const header = await readHeader(place, disk);
    if (typeof header !== 'string') {
      const entries = readEntries(header);
      const note = noteOn(place, header, { diskBytes: disk.diskBytes, whyNot });
      return note === null ? entries : { ...entries, notes: [note, ...entries.notes] };
    }
    // a header that is not valid tells more than a place without one
    if (whyNot === null || (whyNot.startsWith(NO_HEADER) && !header.startsWith(NO_HEADER))) whyNot = header;
  }
  const why = whyNot ?? 'the disk is too small for one';
  return { table: null, found: [], notes: [`the disk has a protective MBR, but no valid GPT: ${why}`] };
}

function noteOn(
  { kind }: Place,
  { lastUsable, sectorBytes }: Header,
  { diskBytes, whyNot }: { diskBytes: number; whyNot: string | null },
): string | null {
  switch (kind) {
    case 'first':
      return null;
    case 'backup':
      return `the GPT is read from its backup: ${whyNot}`;
    default:
      return `the disk was cut: its GPT needs more than ${lastUsable * sectorBytes} bytes, and it has ${diskBytes}`;
  }
}

/** The places in the order in which they are tried, for all sector sizes each. */
function placesOf({ diskBytes, sectorBytes }: TableDisk): Place[] {
  const sizes = sectorBytes === null ? SECTOR_SIZES : [sectorBytes];
  const disks = sizes.map((sectorBytes) => ({ sectorBytes, last: Math.floor(diskBytes / sectorBytes) - 1 }));
  const big = disks.filter(({ last }) => last > 1);
  return [
    ...big.map(({ sectorBytes }) => ({ sectorBytes, lba: 1, kind: 'first' as const })),
    ...big.map(({ sectorBytes, last }) => ({ sectorBytes, lba: last, kind: 'backup' as const })),
    ...big.map(({ sectorBytes }) => ({ sectorBytes, lba: 1, kind: 'first, of a larger disk' as const })),
  ];
}

const NO_HEADER = 'there is no header';

/** The header, or a text that says why there is no valid header at this place. */
async function readHeader({ sectorBytes, lba, kind }: Place, { read, diskBytes }: TableDisk): Promise<Header | string> {
  const where = `the header at byte ${lba * sectorBytes}`;
  const sector = await read(lba * sectorBytes, sectorBytes);
  const view = viewOf(sector);
  if (latin1(sector, 0, 8) !== SIGNATURE) return `${NO_HEADER} at byte ${lba * sectorBytes}`;
  const headerBytes = view.getUint32(12, true);
  if (headerBytes < MIN_HEADER_BYTES || headerBytes > sectorBytes)
    return `${where} gives its size as ${headerBytes} bytes`;
  const checksum = await checksumOf(sector.subarray(0, headerBytes));
  if (checksum !== view.getUint32(16, true)) return `${where} has a wrong checksum`;
  if (view.getUint32(8, true) >>> 16 !== MAJOR_REVISION) return `${where} has a revision other than 1.x`;
  const lastLba = Math.floor(diskBytes / sectorBytes) - 1;
  if (lbaAt(view, 24) !== lba) return `${where} gives another position of itself`;
  const [firstUsable, lastUsable] = [lbaAt(view, 40), lbaAt(view, 48)];
  const mayEndLater = kind === 'first, of a larger disk';
  if (firstUsable > lastUsable || firstUsable > lastLba || (lastUsable > lastLba && !mayEndLater)) {
    return `${where} gives the usable sectors as ${firstUsable} to ${lastUsable}, of ${lastLba + 1}`;
  }
  const array = await readArray(view, sectorBytes, { read, diskBytes });
  if (typeof array === 'string') return `${where} ${array}`;
  return { sectorBytes, firstUsable, lastUsable, entryBytes: view.getUint32(84, true), array };
}

async function readArray(
  view: DataView,
  sectorBytes: number,
  { read, diskBytes }: Pick<TableDisk, 'read' | 'diskBytes'>,
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

/** The CRC-32 of zlib. Loaded with the first GPT, because zlib takes a megabyte in each process that loads it. */
async function crc32(bytes: Uint8Array): Promise<number> {
  return (await import('node:zlib')).crc32(bytes);
}

/** The checksum of a header, computed with 0 in the place of the checksum itself. */
function checksumOf(header: Uint8Array): Promise<number> {
  const copy = Uint8Array.from(header);
  copy.fill(0, 16, 20);
  return crc32(copy);
}

/** The entries in use. Entries outside the usable range are left out with a note. */
function readEntries({ array, entryBytes, sectorBytes, firstUsable, lastUsable }: Header): FoundTable {
  const found: FoundPartition[] = [];
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
      uuid: guidAt(view, 16).toLowerCase(),
    });
  }
  return { table: 'gpt', found, notes };
}

/** The text form of a GUID. Its first three fields are little-endian. */
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
  // a lone surrogate becomes U+FFFD, because JSON output must be valid Unicode
  const text = new TextDecoder('utf-16le', { ignoreBOM: true }).decode(
    entry.subarray(NAME_START, NAME_START + NAME_BYTES),
  );
  const [name = ''] = text.split('\0');
  return name === '' ? null : name;
}

/** The number of a sector. Numbers above 2^53 lose digits, but they are outside every disk anyway. */
function lbaAt(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
}

function latin1(bytes: Uint8Array, from: number, to: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1', from, to);
}
