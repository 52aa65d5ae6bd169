/**
 * The toy format: as small as a format can be that allocates, counts, copies on write, frees and uses space again. It
 * exists to prove the harness: each of its mistakes must be found. Numbers are u64, little-endian.
 *
 *      unit 0   header: magic, flags (1: dirty), size of the disk, generation; at HEADER_COPY the generation again
 *      unit 1   a count for each unit of the file, u8
 *      unit 2   the directory: the place of each table
 *      others   tables of TABLE_ENTRIES entries, and data
 *
 * An entry is the place of a unit, with flag ZERO if it reads as zeros; 0: what is below shows, or zeros.
 */
import { FusetapError } from '../../../drivers/errors.js';
import { SparseBytes } from '../sparse-bytes.js';

export const UNIT = 8192;
export const TABLE_ENTRIES = 16;
export const TABLE_SPAN = UNIT * TABLE_ENTRIES;
export const COUNTS_AT = UNIT;
export const DIRECTORY_AT = 2 * UNIT;
export const FIRST_UNIT = 3;
/** in the second page: a header that is written whole can be torn */
const HEADER_COPY = 4096;
export const ZERO = 1;
export const DIRTY = 1;
const MAGIC = 0x31594f54_4b534944n;

export interface Header {
  readonly flags: number;
  readonly size: number;
  readonly generation: number;
}

/** The first unit. */
export function headerBytes({ flags, size, generation }: Header): Buffer {
  const bytes = Buffer.alloc(UNIT);
  bytes.writeBigUInt64LE(MAGIC, 0);
  bytes.writeBigUInt64LE(BigInt(flags), 8);
  bytes.writeBigUInt64LE(BigInt(size), 16);
  for (const at of [24, HEADER_COPY]) bytes.writeBigUInt64LE(BigInt(generation), at);
  return bytes;
}

/** @throws FusetapError USAGE, FAILED */
export function parseHeader(bytes: Buffer): Header {
  if (bytes.readBigUInt64LE(0) !== MAGIC) throw new FusetapError('USAGE', 'it is no toy image');
  const [flags, size, generation, copy] = [8, 16, 24, HEADER_COPY].map((at) => Number(bytes.readBigUInt64LE(at)));
  if (generation !== copy) throw new FusetapError('FAILED', 'its header is damaged');
  return { flags, size, generation } as Header;
}

/** An image of a disk that has no data. */
export function emptyImage(size: number): SparseBytes {
  const image = new SparseBytes(FIRST_UNIT * UNIT);
  image.write(headerBytes({ flags: 0, size, generation: 1 }), 0);
  image.write(Buffer.alloc(FIRST_UNIT, 1), COUNTS_AT);
  return image;
}

export function tablesOf(size: number): number {
  return Math.ceil(size / TABLE_SPAN);
}

/** The mistakes that the driver can make on purpose, and what is wrong with each. */
export const MISTAKES = {
  'pointer first': 'the entry is written before the data',
  'pointer and data at once': 'the entry is written without waiting for the data',
  'count last': 'the entry is written before the count',
  'acknowledges early': 'a write is acknowledged before its entry is written',
  'entries on the heap': 'entries are written at a flush only',
  'reads in open': 'tables are read in open, when another server may still write them',
  'no barrier for a table': 'the place of a new table is written before the table is durable',
  'no barrier for a copy': 'an entry takes the place of what is below before the copy is durable',
  'never dirty': 'counts may be wrong after a power cut, but the image does not say so',
  'dirty without a flush': 'counts may be written before the image says that they may be wrong',
  'clean too early': 'the image says that its counts are right before they are durable',
  'uses a freed unit too early': 'a unit is used again before it is durable that nothing names it',
  'frees before the entry': 'a unit is punched and its count is 0 while an entry names it',
  'forgets other kills': 'the dirty flag is cleared though a server was killed in this session',
  'writes the header whole': 'the header is written with both copies in one call',
  'zeros the table first': 'a table is made zeros and written again',
  'keeps its size': 'the size of the file is not measured again after another server made it larger',
  'repair is clean too early': 'repair says that the counts are right before they are durable',
  'merges old bytes': 'two writes to one new unit do not wait for each other',
  'loses an error': 'the entry on the heap names the unit, though writing it has failed',
} as const;
export type Mistake = keyof typeof MISTAKES;
