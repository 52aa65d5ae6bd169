/**
 * The header of a qcow2 image. All fields are big endian.
 *
 *      0 magic   4 version   8 backing name (offset 8, length 4)   20 cluster bits   24 size   32 encryption
 *      36 L1 (entries 4, offset 8)   48 refcount table (offset 8, clusters 4)   60 snapshots (count 4, offset 8)
 *      version 3:   72 incompatible bits   80 compatible bits   88 autoclear bits   96 refcount order
 *                   100 header length   104 compression
 *
 * Every number is checked here before anything uses it.
 */
import type { Disk } from '../../disk.js';
import { FusetapError } from '../../errors.js';
import { broken, unsupported } from '../../formats/faults.js';
import { readUpTo } from '../../formats/read.js';
import { wrongFormat } from '../../formats/wrong-format.js';
import { type Extensions, parseExtensions } from './extensions.js';

export const FORMAT = 'qcow2 image';
export const MAGIC = 0x514649fb;
export const V2_HEADER_BYTES = 72;
export const MIN_V3_HEADER_BYTES = 104;
/** the header with the compression type, as today's programs write it */
export const HEADER_BYTES = 112;

export const INCOMPATIBLE = { dirty: 1n, corrupt: 2n, dataFile: 4n, compression: 8n, extendedL2: 16n } as const;
const KNOWN_INCOMPATIBLE = 31n;
export const COMPATIBLE = { lazyRefcounts: 1n } as const;
export const AUTOCLEAR = { bitmaps: 1n, rawDataFile: 2n } as const;

export const COMPRESSION = { deflate: 0, zstd: 1 } as const;

export const MIN_CLUSTER_BITS = 9;
export const MAX_CLUSTER_BITS = 21;
/** a cluster of an image with extended L2 has 32 parts of at least 512 bytes */
export const MIN_EXTENDED_CLUSTER_BITS = 14;
export const SUBCLUSTERS = 32;
export const MOST_L1_BYTES = 32 << 20;
export const MOST_REFCOUNT_TABLE_BYTES = 8 << 20;
/** the fixed part of an entry of the snapshot table */
export const SNAPSHOT_ENTRY_BYTES = 40;
/** where fields of the header are that change */
export const HEADER_AT = { refcountTable: 48, features: 72 } as const;
export const MOST_SNAPSHOTS = 65_536;
const MOST_NAME_BYTES = 1023;
export const SECTOR_BYTES = 512;

export interface Header {
  readonly version: 2 | 3;
  readonly clusterBits: number;
  readonly clusterBytes: number;
  /** of the disk, in bytes: whole sectors */
  readonly size: number;
  readonly backing: { readonly name: string; readonly format: string | null } | null;
  readonly l1: { readonly offset: number; readonly entries: number };
  readonly refcountTable: { readonly offset: number; readonly clusters: number };
  readonly snapshots: { readonly offset: number; readonly count: number };
  readonly incompatible: bigint;
  readonly compatible: bigint;
  readonly autoclear: bigint;
  /** a refcount has 2 to the power of this bits */
  readonly refcountOrder: number;
  readonly headerBytes: number;
  readonly compression: 'deflate' | 'zstd';
  readonly hasExtendedL2: boolean;
  readonly hasDataFile: boolean;
  /** the data file has the bytes of the disk, and others read it without the tables */
  readonly hasRawData: boolean;
  readonly extensions: Extensions;
}

/** The entries of an L2 table are 8 bytes, with extended L2 16 bytes. */
export function l2EntryBytes({ hasExtendedL2 }: Pick<Header, 'hasExtendedL2'>): number {
  return hasExtendedL2 ? 16 : 8;
}

/** What an entry of an L2 table, or a bit of an extended one, describes: a cluster or a subcluster. */
export function unitBytesOf({ hasExtendedL2, clusterBytes }: Pick<Header, 'hasExtendedL2' | 'clusterBytes'>): number {
  return hasExtendedL2 ? clusterBytes / SUBCLUSTERS : clusterBytes;
}

/** The image was not closed cleanly, so its refcounts need not be right. */
export function isDirty({ incompatible }: Pick<Header, 'incompatible'>): boolean {
  return (incompatible & INCOMPATIBLE.dirty) !== 0n;
}

/** A program has found the image broken, and marked it. */
export function isMarkedCorrupt({ incompatible }: Pick<Header, 'incompatible'>): boolean {
  return (incompatible & INCOMPATIBLE.corrupt) !== 0n;
}

/** How many guest clusters an L2 table maps. */
export function l2Entries(header: Pick<Header, 'hasExtendedL2' | 'clusterBytes'>): number {
  return header.clusterBytes / l2EntryBytes(header);
}

/** How many L1 entries a disk of `size` bytes needs. */
export function l1EntriesFor(size: number, header: Pick<Header, 'hasExtendedL2' | 'clusterBytes'>): number {
  return Math.ceil(size / (header.clusterBytes * l2Entries(header)));
}

/** How many refcounts a refcount block has. */
export function refcountsPerBlock({
  clusterBytes,
  refcountOrder,
}: Pick<Header, 'clusterBytes' | 'refcountOrder'>): number {
  return (clusterBytes * 8) / 2 ** refcountOrder;
}

/**
 * Reads and checks the header, and the extensions after it.
 * @throws FusetapError USAGE if it is no qcow2 image; UNSUPPORTED for what the driver cannot serve; FAILED if it is
 * damaged
 */
export async function readHeader(image: Disk): Promise<Header> {
  const start = await readUpTo(image, 0, HEADER_BYTES);
  if (start.length < V2_HEADER_BYTES || start.readUInt32BE(0) !== MAGIC)
    throw await wrongFormat(image, 'a qcow2 image');
  checkVersion(start.readUInt32BE(4));
  const clusterBits = start.readUInt32BE(20);
  if (clusterBits < MIN_CLUSTER_BITS || clusterBits > MAX_CLUSTER_BITS) {
    throw broken(FORMAT, `a cluster has 2 to the power of ${clusterBits} bytes, not of 9 to 21`);
  }
  return parseHeader(await readUpTo(image, 0, 2 ** clusterBits), image.size);
}

function checkVersion(version: number): void {
  if (version === 2 || version === 3) return;
  throw unsupported(
    version === 1 ? 'it is a qcow image of version 1, which is not qcow2' : `its version is ${version}, not 2 or 3`,
  );
}

/** @param bytes the first cluster, or less if the image is smaller; its magic and cluster bits are checked */
export function parseHeader(bytes: Buffer, imageBytes: number): Header {
  const version = bytes.readUInt32BE(4) as 2 | 3;
  const clusterBits = bytes.readUInt32BE(20);
  const clusterBytes = 2 ** clusterBits;
  const encryption = bytes.readUInt32BE(32);
  if (encryption !== 0) throw unsupported('it is encrypted', 'decrypt it first: qemu-img convert with --object secret');
  const features = version === 2 ? V2_FEATURES : parseFeatures(bytes);
  const { hasExtendedL2, hasDataFile } = checkFeatures(features, clusterBits);
  const shape = { clusterBytes, hasExtendedL2 };
  const sizeField = safe(bytes.readBigUInt64BE(24), 'its size');
  const size = sizeField - (sizeField % SECTOR_BYTES);
  if (size === 0) throw unsupported('its disk has no bytes', 'make it larger: qemu-img resize IMAGE SIZE');
  const table = (at: number, bytesOf: number, most: number, what: string): number => {
    const offset = safe(bytes.readBigUInt64BE(at), `the place of the ${what}`);
    if (bytesOf > most) throw broken(FORMAT, `the ${what} has ${bytesOf} bytes, more than ${most}`);
    if (bytesOf > 0) checkTable(offset, bytesOf, { clusterBytes, imageBytes, what });
    return offset;
  };
  const l1Entries = bytes.readUInt32BE(36);
  if (l1Entries < l1EntriesFor(size, shape)) throw broken(FORMAT, `its L1 table is too small for ${size} bytes`);
  const refcountClusters = bytes.readUInt32BE(56);
  if (refcountClusters === 0) throw broken(FORMAT, 'it has no refcount table');
  const snapshotCount = bytes.readUInt32BE(60);
  if (snapshotCount > MOST_SNAPSHOTS)
    throw broken(FORMAT, `it has ${snapshotCount} snapshots, more than ${MOST_SNAPSHOTS}`);
  const { extensions, name } = parseNames(bytes, { version, features, hasDataFile });
  return {
    ...{ version, clusterBits, clusterBytes, size, ...features, hasExtendedL2, hasDataFile, extensions },
    hasRawData: hasDataFile && (features.autoclear & AUTOCLEAR.rawDataFile) !== 0n,
    backing: name === null ? null : { name, format: extensions.backingFormat },
    l1: { offset: table(40, l1Entries * 8, MOST_L1_BYTES, 'L1 table'), entries: l1Entries },
    refcountTable: {
      offset: table(48, refcountClusters * clusterBytes, MOST_REFCOUNT_TABLE_BYTES, 'refcount table'),
      clusters: refcountClusters,
    },
    // the entries have no fixed length: 40 bytes are the least
    snapshots: {
      offset: table(64, snapshotCount * SNAPSHOT_ENTRY_BYTES, 64 << 20, 'snapshot table'),
      count: snapshotCount,
    },
  };
}

type Features = Pick<
  Header,
  'incompatible' | 'compatible' | 'autoclear' | 'refcountOrder' | 'headerBytes' | 'compression'
>;

const V2_FEATURES: Features = {
  ...{ incompatible: 0n, compatible: 0n, autoclear: 0n },
  ...{ refcountOrder: 4, headerBytes: V2_HEADER_BYTES, compression: 'deflate' },
};

function parseFeatures(bytes: Buffer): Features {
  if (bytes.length < MIN_V3_HEADER_BYTES) throw broken(FORMAT, 'it ends within its header');
  const headerBytes = bytes.readUInt32BE(100);
  if (headerBytes < MIN_V3_HEADER_BYTES || headerBytes > bytes.length || headerBytes % 8 !== 0) {
    throw broken(FORMAT, `its header has ${headerBytes} bytes`);
  }
  const refcountOrder = bytes.readUInt32BE(96);
  if (refcountOrder > 6) throw broken(FORMAT, `a refcount has 2 to the power of ${refcountOrder} bits, more than 64`);
  const incompatible = bytes.readBigUInt64BE(72);
  const type = headerBytes > MIN_V3_HEADER_BYTES ? bytes.readUInt8(104) : COMPRESSION.deflate;
  const isMarked = (incompatible & INCOMPATIBLE.compression) !== 0n;
  if (isMarked !== (type !== COMPRESSION.deflate)) {
    throw broken(FORMAT, 'its compression type and its feature bits do not agree');
  }
  if (type > COMPRESSION.zstd) throw unsupported(`its compression type is ${type}, which is not known`);
  return {
    ...{ incompatible, compatible: bytes.readBigUInt64BE(80), autoclear: bytes.readBigUInt64BE(88) },
    ...{ refcountOrder, headerBytes, compression: type === COMPRESSION.zstd ? 'zstd' : 'deflate' },
  };
}

function checkFeatures(
  { incompatible }: Features,
  clusterBits: number,
): { hasExtendedL2: boolean; hasDataFile: boolean } {
  const hasExtendedL2 = (incompatible & INCOMPATIBLE.extendedL2) !== 0n;
  if (hasExtendedL2 && clusterBits < MIN_EXTENDED_CLUSTER_BITS) {
    throw broken(FORMAT, `it has extended L2 entries, but its clusters have only ${2 ** clusterBits} bytes`);
  }
  return { hasExtendedL2, hasDataFile: (incompatible & INCOMPATIBLE.dataFile) !== 0n };
}

interface NameFacts {
  readonly version: 2 | 3;
  readonly features: Features;
  readonly hasDataFile: boolean;
}

/** The extensions and the name of the backing file. */
function parseNames(
  bytes: Buffer,
  { version, features, hasDataFile }: NameFacts,
): { extensions: Extensions; name: string | null } {
  const offset = safe(bytes.readBigUInt64BE(8), 'the place of the backing file’s name');
  const length = bytes.readUInt32BE(16);
  const hasName = offset !== 0 && length > 0;
  if (hasName && (length > MOST_NAME_BYTES || offset < features.headerBytes || offset + length > bytes.length)) {
    throw broken(FORMAT, 'the name of its backing file is not inside its first cluster');
  }
  const extensions = parseExtensions(bytes.subarray(features.headerBytes, hasName ? offset : bytes.length));
  const unknown = features.incompatible & ~KNOWN_INCOMPATIBLE;
  if (unknown !== 0n) throw unknownFeature(unknown, extensions);
  if (extensions.encryption) throw broken(FORMAT, 'it has an encryption header, but is not encrypted');
  if ((features.autoclear & AUTOCLEAR.rawDataFile) !== 0n && !hasDataFile && version === 3) {
    throw broken(FORMAT, 'its data file is marked as raw, but it has none');
  }
  if (extensions.bitmaps !== null && hasBitmaps(features)) checkBitmaps(extensions.bitmaps);
  return { extensions, name: hasName ? bytes.toString('utf8', offset, offset + length) : null };
}

function hasBitmaps({ autoclear }: Pick<Features, 'autoclear'>): boolean {
  return (autoclear & AUTOCLEAR.bitmaps) !== 0n;
}

function checkBitmaps({ count }: { readonly count: number }): void {
  if (count === 0 || count > 65_535) throw broken(FORMAT, `it has ${count} bitmaps, not 1 to 65535`);
}

function unknownFeature(bits: bigint, { featureNames }: Extensions): FusetapError {
  let bit = 0;
  while (((bits >> BigInt(bit)) & 1n) === 0n) bit += 1;
  const name = featureNames.find((each) => each.kind === 'incompatible' && each.bit === bit)?.name;
  return unsupported(`it has the feature ${name === undefined ? `of bit ${bit}` : `"${name}"`}, which is not known`);
}

export interface TablePlace {
  readonly clusterBytes: number;
  readonly imageBytes: number;
  readonly what: string;
}

/** @throws FusetapError FAILED if a table is not aligned, or not inside the image */
export function checkTable(offset: number, bytes: number, { clusterBytes, imageBytes, what }: TablePlace): void {
  if (offset % clusterBytes !== 0 || offset === 0) throw broken(FORMAT, `the ${what} begins at byte ${offset}`);
  // the last cluster of a file may be cut
  if (offset + bytes > Math.ceil(imageBytes / clusterBytes) * clusterBytes) {
    throw broken(FORMAT, `the ${what} is not inside the image`);
  }
}

function safe(value: bigint, what: string): number {
  if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
  throw broken(FORMAT, `${what} is ${value}, which is too large`);
}

/** @throws FusetapError DENIED or UNSUPPORTED if an image must not be written */
export function checkWritable({ version, incompatible }: Pick<Header, 'version' | 'incompatible'>): void {
  if (version === 2) {
    throw new FusetapError('UNSUPPORTED', 'it is a qcow2 image of version 2, which can only be read', {
      hint: 'attach it with mode r, or make it version 3: qemu-img amend -f qcow2 -o compat=1.1 IMAGE',
    });
  }
  if (isMarkedCorrupt({ incompatible })) {
    throw new FusetapError('DENIED', 'it is marked as corrupt', {
      hint: 'attach it with mode r, or repair it: qemu-img check -r all IMAGE',
    });
  }
}
