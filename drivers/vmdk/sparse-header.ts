/**
 * The header of a sparse extent, which says where its tables are. Numbers are little endian; places and sizes are in sectors.
 *
 *      hosted (KDMV), 512 bytes                           of ESXi (COWD)
 *       4  4  version: 1 … 3                               4  4  version: 1
 *       8  4  flags                                       12  4  capacity
 *      12  8  capacity                                    16  4  grain
 *      20  8  grain                                       20  4  grain directory
 *      28  8  descriptor: place; 36  8  its size
 *      44  4  entries of a grain table: 512               (4096 entries of a grain table)
 *      48  8  redundant grain directory: of the copies of all tables
 *      56  8  grain directory; ~0: see the footer
 *      64  8  all tables end before this place
 *      72  1  not closed cleanly
 *      73  4  \n, space, \r, \n: another program that changes line ends has damaged the file
 *      77  2  compression: 1 is deflate
 *
 * The footer of a stream (streamOptimized) is a copy of the header with the place of the directory, 1024 bytes before the end.
 */
import type { Disk } from '../disk.js';
import { broken as damaged, unsupported } from '../formats/faults.js';
import { readUpTo, sizeAt } from '../formats/read.js';
import { MOST_DESCRIPTOR_BYTES, SECTOR_BYTES } from './descriptor.js';

export const HEADER_BYTES = 512;
const FOOTER_FROM_END = 1024;
const AT_END = 0xffff_ffff_ffff_ffffn;
/** the byte that says that the image was not closed cleanly */
export const UNCLEAN_AT = 72;
const FLAGS = { newlines: 1, copies: 2, zeroGrains: 4, compressed: 0x1_0000, markers: 0x2_0000 } as const;
const KNOWN_FLAGS = Object.values(FLAGS).reduce((all, flag) => all | flag, 0);
const NEWLINES = '\n \r\n';
const DEFLATE = 1;
/** as in QEMU */
const MOST_GRAIN_BYTES = 2 ** 30;
/** a compressed grain is decoded as a whole; usual are 64 KiB */
const MOST_DECODED_BYTES = 2 << 20;
const COWD_ENTRIES = 4096;
const MOST_ENTRIES = 4096;
/** with the usual tables: 256 TiB */
export const MOST_DIRECTORY_BYTES = 32 << 20;

/** A place in an image, in bytes. */
export interface Region {
  readonly offset: number;
  readonly length: number;
}

export interface SparseHeader {
  readonly version: number;
  /** of the extent, in bytes */
  readonly size: number;
  /** a power of two */
  readonly grainBytes: number;
  readonly tableEntries: number;
  /** inside the image */
  readonly directory: Region;
  /** the entry 1 of a grain table is zeros */
  readonly hasZeroGrains: boolean;
  readonly isCompressed: boolean;
  /** each compressed grain begins with its place in the disk, and its length */
  readonly hasMarkers: boolean;
  /** room for a descriptor: see readEmbedded */
  readonly descriptor: Region | null;
  readonly isUnclean: boolean;
  /** where the redundant directory begins; null: tables have no copies. It need not be inside the image */
  readonly copiesAt: number | null;
  /** where the tables are said to end; need not be inside the image */
  readonly tablesEnd: number;
  /** another header at the end of the image counts, as in a stream */
  readonly hasFooter: boolean;
  readonly hasUnknownFlags: boolean;
}

const broken = (what: string): Error => damaged('VMDK', what);

export type SparseKind = 'hosted' | 'esx';

/** What sparse extent begins with these bytes; null: none. @throws FusetapError UNSUPPORTED for seSparse */
export function sparseKind(first: Buffer): SparseKind | null {
  const magic = first.toString('latin1', 0, 4);
  if (magic === 'KDMV') return 'hosted';
  if (magic === 'COWD') return 'esx';
  if (first.toString('hex', 0, 8) === 'bebafeca00000000') {
    throw unsupported('it is a VMDK of type seSparse (a snapshot of ESXi), which no driver reads', CLONE);
  }
  return null;
}

const CLONE = 'copy the disk on the ESXi host: vmkfstools -i DISK.vmdk COPY.vmdk';

/**
 * Reads the header of a sparse extent.
 * @returns null if the image is none
 * @throws FusetapError UNSUPPORTED for a variant without driver; FAILED for a header that breaks the rules
 */
export async function readSparseHeader(image: Disk): Promise<SparseHeader | null> {
  const first = await readUpTo(image, 0, HEADER_BYTES);
  const kind = sparseKind(first);
  if (kind === null) return null;
  if (first.length < HEADER_BYTES) throw broken('it is shorter than its header');
  const header = kind === 'esx' ? parseCowd(first) : parseHosted(await footerOf(image, first), first);
  checkShape(header);
  return { ...header, directory: directoryOf(header, image) };
}

/** A header whose numbers are not checked against each other. */
type Parsed = Omit<SparseHeader, 'directory'> & { readonly directoryAt: number };

/** The header that counts: the last one of a stream. */
async function footerOf(image: Disk, header: Buffer): Promise<Buffer> {
  if (header.readBigUInt64LE(56) !== AT_END) return header;
  const at = image.size - FOOTER_FROM_END;
  const footer = at < HEADER_BYTES ? header : await readUpTo(image, at, HEADER_BYTES);
  if (footer.toString('latin1', 0, 4) === 'KDMV' && footer.readBigUInt64LE(56) !== AT_END) return footer;
  throw broken('the footer at its end, which names its tables, is not there: the file is cut off');
}

/** @param first has the descriptor, also if another header counts */
function parseHosted(bytes: Buffer, first: Buffer): Parsed {
  const version = bytes.readUInt32LE(4);
  if (version < 1 || version > 3) throw unsupported(`it is a VMDK of version ${version}`);
  const flags = bytes.readUInt32LE(8);
  const has = (flag: number): boolean => (flags & flag) !== 0;
  if (has(FLAGS.newlines) && bytes.toString('latin1', 73, 77) !== NEWLINES) {
    throw broken('its line ends were changed, as by a transfer as text');
  }
  const compression = bytes.readUInt16LE(77);
  if (has(FLAGS.compressed) && compression !== DEFLATE) {
    throw unsupported(`it is a VMDK with compression ${compression}, which no driver reads`);
  }
  return {
    ...{ version, size: bytesAt(bytes, 12), grainBytes: bytesAt(bytes, 20), tableEntries: bytes.readUInt32LE(44) },
    directoryAt: bytesAt(bytes, 56),
    hasZeroGrains: has(FLAGS.zeroGrains),
    isCompressed: has(FLAGS.compressed),
    hasMarkers: has(FLAGS.markers),
    descriptor: descriptorIn(first),
    isUnclean: first.readUInt8(UNCLEAN_AT) !== 0,
    copiesAt: has(FLAGS.copies) && bytes.readBigUInt64LE(48) !== 0n ? uncheckedBytesAt(bytes, 48) : null,
    tablesEnd: uncheckedBytesAt(bytes, 64),
    hasFooter: bytes !== first,
    hasUnknownFlags: (flags & ~KNOWN_FLAGS) !== 0,
  };
}

function parseCowd(bytes: Buffer): Parsed {
  const version = bytes.readUInt32LE(4);
  if (version !== 1) throw unsupported(`it is a VMDK (COWD) of version ${version}`);
  const sectors = (at: number): number => bytes.readUInt32LE(at) * SECTOR_BYTES;
  return {
    ...{ version, size: sectors(12), grainBytes: sectors(16), tableEntries: COWD_ENTRIES, directoryAt: sectors(20) },
    ...{ hasZeroGrains: false, isCompressed: false, hasMarkers: false, descriptor: null, isUnclean: false },
    ...{ copiesAt: null, tablesEnd: 0, hasFooter: false, hasUnknownFlags: false },
  };
}

function descriptorIn(header: Buffer): Region | null {
  const [offset, length] = [bytesAt(header, 28), bytesAt(header, 36)];
  if (offset === 0 || length === 0) return null;
  if (length > MOST_DESCRIPTOR_BYTES) throw broken(`its descriptor has ${length} bytes, more than 1 MiB`);
  return { offset, length };
}

/** @returns bytes */
function bytesAt(header: Buffer, at: number): number {
  const bytes = sizeAt(header, at, 'le', 'VMDK') * SECTOR_BYTES;
  if (Number.isSafeInteger(bytes)) return bytes;
  throw broken(`the number ${header.readBigUInt64LE(at)} at byte ${at} of its header is too large`);
}

/** As bytesAt, for what only writers need: readers do not refuse a number that is too large. */
function uncheckedBytesAt(header: Buffer, at: number): number {
  return Number(header.readBigUInt64LE(at)) * SECTOR_BYTES;
}

function checkShape({ size, grainBytes, tableEntries, isCompressed }: Parsed): void {
  if (size === 0) throw broken('its disk has no bytes');
  const most = isCompressed ? MOST_DECODED_BYTES : MOST_GRAIN_BYTES;
  if (grainBytes < SECTOR_BYTES || grainBytes > most || !isPowerOfTwo(grainBytes)) {
    throw broken(`its grains have ${grainBytes} bytes: the size must be a power of two, up to ${most}`);
  }
  if (tableEntries === 0 || tableEntries > MOST_ENTRIES) {
    throw broken(`its grain tables have ${tableEntries} entries: there must be 1 to ${MOST_ENTRIES}`);
  }
}

function isPowerOfTwo(value: number): boolean {
  return Number.isInteger(Math.log2(value));
}

/** The redundant directory; null: there is none. @throws FusetapError FAILED if it is not inside the image */
export function copiesOf({ copiesAt, directory }: SparseHeader, image: Disk): Region | null {
  if (copiesAt === null) return null;
  const { length } = directory;
  if (copiesAt >= HEADER_BYTES && copiesAt + length <= image.size) return { offset: copiesAt, length };
  throw broken(`its redundant grain directory at byte ${copiesAt} is not inside its ${image.size} bytes`);
}

function directoryOf({ size, grainBytes, tableEntries, directoryAt }: Parsed, image: Disk): Region {
  const length = Math.ceil(size / (grainBytes * tableEntries)) * 4;
  if (length > MOST_DIRECTORY_BYTES) throw broken(`its grain directory has ${length} bytes, more than 32 MiB`);
  if (directoryAt >= HEADER_BYTES && directoryAt + length <= image.size) return { offset: directoryAt, length };
  throw broken(`its grain directory of ${length} bytes at byte ${directoryAt} is not inside its ${image.size} bytes`);
}

/**
 * Reads the descriptor that is inside an extent.
 * @returns null if it is another file: QEMU leaves room for one in each extent, filled with zeros
 * @throws FusetapError FAILED if it is not wholly inside
 */
export async function readEmbedded(image: Disk, { descriptor }: SparseHeader): Promise<Buffer | null> {
  if (descriptor === null) return null;
  const { offset, length } = descriptor;
  if (offset + length > image.size) {
    throw broken(`its descriptor ends at byte ${offset + length}, and it has ${image.size} bytes`);
  }
  const text = await readUpTo(image, offset, length);
  return text[0] === 0 ? null : text;
}

/** The refusal of a sparse extent that is a part of a disk. */
export function notAlone(): Error {
  const what = 'it is an extent of a VMDK: the descriptor of the disk is another file';
  return unsupported(what, `attach the descriptor, a small text: vmdk:DISK.vmdk`);
}
