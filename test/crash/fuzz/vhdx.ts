/** Where the headers and tables of a VHDX are, and how its checksums are put right. */
import {
  BAT_AT,
  BAT_GUID,
  batEntry,
  guidBytes,
  HEADERS_AT,
  LOG_AT,
  logEntry,
  METADATA_GUID,
  PAGE,
  REGIONS_AT,
  seal,
  u64,
} from '../../drivers/images/vhdx.js';
import { plainImage } from '../../drivers/vhdx/over.js';
import type { SparseBytes } from '../sparse-bytes.js';
import type { Region } from './mutate.js';

const TABLE_BYTES = 64 << 10;
/** the entries of these images are shorter */
const MOST_ENTRY_BYTES = 16 * PAGE;

/** An image with two entries in its log, for its block table, its metadata and its data. */
export function loggedVhdx(): Buffer {
  const bat = Buffer.alloc(PAGE);
  u64(batEntry(6, 5), batEntry(2), batEntry(6, 4)).copy(bat);
  const data = { offset: 4 * 2 ** 20 + PAGE, page: Buffer.alloc(PAGE, 9) };
  const zeros = { offset: 5 * 2 ** 20, zeros: 3 * PAGE };
  const entries = [
    logEntry({ sequence: 5, changes: [{ offset: BAT_AT, page: bat }, data] }),
    logEntry({ sequence: 6, changes: [zeros] }),
  ];
  return plainImage({ log: Buffer.concat(entries) });
}

export function vhdxRegions(image: Buffer): Region[] {
  const region = (offset: number, length: number, word: Region['word']): Region => {
    return { offset, length, word, order: 'little' };
  };
  const [bat, metadata] = [placeOf(image, BAT_GUID), placeOf(image, METADATA_GUID)];
  const wide = [
    ...HEADERS_AT.map((at) => region(at, 80, 8)),
    ...REGIONS_AT.map((at) => region(at + 16, 64, 8)),
    region(bat, 64, 8),
    region(metadata + TABLE_BYTES, 64, 8),
    region(LOG_AT, 160, 8),
    region(LOG_AT + 3 * PAGE, 128, 8),
  ];
  const narrow = [
    ...REGIONS_AT.map((at) => region(at, 80, 4)),
    region(metadata, 256, 4),
    region(metadata + TABLE_BYTES, 32, 4),
    region(LOG_AT, 160, 4),
    region(0, 32, 1),
  ];
  return [...wide, ...narrow];
}

/** The offset of a region. */
function placeOf(image: Buffer, guid: string): number {
  return Number(image.readBigUInt64LE(image.indexOf(guidBytes(guid), REGIONS_AT[0]) + 16));
}

export function sealVhdx(file: SparseBytes): void {
  for (const at of HEADERS_AT) sealAt(file, at, PAGE);
  for (const at of REGIONS_AT) sealAt(file, at, TABLE_BYTES);
  for (let at = LOG_AT; at < LOG_AT + MOST_ENTRY_BYTES; at += PAGE) {
    if (at + PAGE > file.size) return;
    const head = Buffer.alloc(12);
    file.read(head, at);
    const length = head.readUInt32LE(8);
    if (head.toString('latin1', 0, 4) === 'loge' && length <= MOST_ENTRY_BYTES) sealAt(file, at, length);
  }
}

function sealAt(file: SparseBytes, at: number, length: number): void {
  if (length < 8 || at + length > file.size) return;
  const bytes = Buffer.alloc(length);
  file.read(bytes, at);
  file.write(seal(bytes), at);
}
