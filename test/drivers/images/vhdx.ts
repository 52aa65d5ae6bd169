/** Writes VHDX images by Microsoft's description of the format, for tests. They share no code with the driver. */

const KIB = 1024;
const MIB = 1 << 20;
export const PAGE = 4096;
export const LOG_AT = MIB;
export const METADATA_AT = 2 * MIB;
export const BAT_AT = 3 * MIB;
export const HEADERS_AT = [64 * KIB, 128 * KIB] as const;
export const REGIONS_AT = [192 * KIB, 256 * KIB] as const;

export const BAT_GUID = '2dc27766-f623-4200-9d64-115e9bfd4a08';
export const METADATA_GUID = '8b7ca206-4790-4b9a-b8fe-575f050f886e';
export const ITEM = {
  parameters: 'caa16737-fa36-4d43-b3b6-33f0aa44e76b',
  size: '2fa54224-cd1b-4876-b211-5dbed83bf4b8',
  logicalSector: '8141bf1d-a96f-4709-ba47-f233a8faab5f',
  physicalSector: 'cda348c7-445d-4471-9cc9-e9885251c556',
  parentLocator: 'a8d35f2d-b30b-454d-abf7-d3d84834ab0c',
} as const;
const LOCATOR_TYPE = 'b04aefb7-d19e-4a81-b789-25b8e9445913';

export const LOG_GUID = '01234567-89ab-cdef-0123-456789abcdef';
export const DATA_GUID = 'da7a0000-0001-0002-0003-000000000004';

/** CRC-32C, bit by bit. */
export function slowCrc32c(bytes: Uint8Array): number {
  let value = 0xffffffff;
  for (const byte of bytes) {
    value ^= byte;
    for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0x82f63b78 : 0);
  }
  return ~value >>> 0;
}

/** Puts the checksum into a structure that is these bytes. */
export function seal(bytes: Buffer): Buffer {
  bytes.writeUInt32LE(0, 4);
  bytes.writeUInt32LE(slowCrc32c(bytes), 4);
  return bytes;
}

export function guidBytes(guid: string): Buffer {
  const bytes = Buffer.from(guid.replaceAll('-', ''), 'hex');
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
}

export interface HeaderFields {
  readonly sequence?: number;
  readonly dataGuid?: string;
  readonly logGuid?: string | null;
  readonly logVersion?: number;
  readonly version?: number;
  readonly logAt?: number;
  readonly logBytes?: number;
}

export function vhdxHeader(fields: HeaderFields = {}): Buffer {
  const bytes = Buffer.alloc(PAGE);
  bytes.write('head', 0, 'latin1');
  bytes.writeBigUInt64LE(BigInt(fields.sequence ?? 7), 8);
  guidBytes(fields.dataGuid ?? DATA_GUID).copy(bytes, 32);
  if (fields.logGuid) guidBytes(fields.logGuid).copy(bytes, 48);
  bytes.writeUInt16LE(fields.logVersion ?? 0, 64);
  bytes.writeUInt16LE(fields.version ?? 1, 66);
  bytes.writeUInt32LE(fields.logBytes ?? MIB, 68);
  bytes.writeBigUInt64LE(BigInt(fields.logAt ?? LOG_AT), 72);
  return seal(bytes);
}

export interface RegionFields {
  readonly guid: string;
  readonly offset: number;
  readonly length: number;
  readonly required?: boolean;
}

export function regionTable(regions: readonly RegionFields[], count = regions.length): Buffer {
  const bytes = Buffer.alloc(64 * KIB);
  bytes.write('regi', 0, 'latin1');
  bytes.writeUInt32LE(count, 8);
  for (const [i, { guid, offset, length, required = true }] of regions.entries()) {
    guidBytes(guid).copy(bytes, 16 + 32 * i);
    bytes.writeBigUInt64LE(BigInt(offset), 32 + 32 * i);
    bytes.writeUInt32LE(length, 40 + 32 * i);
    bytes.writeUInt32LE(required ? 1 : 0, 44 + 32 * i);
  }
  return seal(bytes);
}

export interface ItemFields {
  readonly guid: string;
  readonly bytes: Buffer;
  /** default: required */
  readonly flags?: number;
}

/** The table and the items, one after the other. */
export function metadataBytes(items: readonly ItemFields[]): Buffer {
  const bytes = Buffer.alloc(128 * KIB);
  bytes.write('metadata', 0, 'latin1');
  bytes.writeUInt16LE(items.length, 10);
  let at = 64 * KIB;
  for (const [i, { guid, bytes: item, flags = 4 }] of items.entries()) {
    guidBytes(guid).copy(bytes, 32 + 32 * i);
    bytes.writeUInt32LE(at, 48 + 32 * i);
    bytes.writeUInt32LE(item.length, 52 + 32 * i);
    bytes.writeUInt32LE(flags, 56 + 32 * i);
    item.copy(bytes, at);
    at += item.length;
  }
  return bytes;
}

export function u32(...values: number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [i, value] of values.entries()) bytes.writeUInt32LE(value, 4 * i);
  return bytes;
}

export function u64(...values: (number | bigint)[]): Buffer {
  const bytes = Buffer.alloc(8 * values.length);
  for (const [i, value] of values.entries()) bytes.writeBigUInt64LE(BigInt(value), 8 * i);
  return bytes;
}

export function parentLocator(values: Readonly<Record<string, string>>): Buffer {
  const entries = Object.entries(values);
  const bytes = Buffer.alloc(4096);
  guidBytes(LOCATOR_TYPE).copy(bytes);
  bytes.writeUInt16LE(entries.length, 18);
  let at = 20 + 12 * entries.length;
  for (const [i, [key, value]] of entries.entries()) {
    const entry = 20 + 12 * i;
    for (const [j, text] of [key, value].entries()) {
      const encoded = Buffer.from(text, 'utf16le');
      encoded.copy(bytes, at);
      bytes.writeUInt32LE(at, entry + 4 * j);
      bytes.writeUInt16LE(encoded.length, entry + 8 + 2 * j);
      at += encoded.length;
    }
  }
  return bytes.subarray(0, at);
}

/** A page that a replay writes, or a range that it zeroes. */
export type LogChangeFields =
  | { readonly offset: number | bigint; readonly page: Buffer }
  | { readonly offset: number | bigint; readonly zeros: number | bigint };

export interface LogEntryFields {
  readonly sequence: number;
  /** where the oldest needed entry begins in the log; default: at 0 */
  readonly tail?: number;
  readonly guid?: string;
  readonly flushed?: number | bigint;
  readonly last?: number | bigint;
  readonly changes: readonly LogChangeFields[];
}

export function logEntry({ sequence, tail = 0, guid = LOG_GUID, ...rest }: LogEntryFields): Buffer {
  const { flushed = 0, last = 0, changes } = rest;
  const tables = Math.ceil((64 + 32 * changes.length) / PAGE);
  const pages = changes.flatMap((change) => ('page' in change ? [change.page] : []));
  const bytes = Buffer.alloc((tables + pages.length) * PAGE);
  bytes.write('loge', 0, 'latin1');
  bytes.writeUInt32LE(bytes.length, 8);
  bytes.writeUInt32LE(tail, 12);
  bytes.writeBigUInt64LE(BigInt(sequence), 16);
  bytes.writeUInt32LE(changes.length, 24);
  guidBytes(guid).copy(bytes, 32);
  bytes.writeBigUInt64LE(BigInt(flushed), 48);
  bytes.writeBigUInt64LE(BigInt(last), 56);
  for (const [i, change] of changes.entries()) {
    const at = 64 + 32 * i;
    bytes.write('page' in change ? 'desc' : 'zero', at, 'latin1');
    if ('page' in change) {
      change.page.copy(bytes, at + 4, PAGE - 4);
      change.page.copy(bytes, at + 8, 0, 8);
    } else bytes.writeBigUInt64LE(BigInt(change.zeros), at + 8);
    bytes.writeBigUInt64LE(BigInt(change.offset), at + 16);
    bytes.writeBigUInt64LE(BigInt(sequence), at + 24);
  }
  for (const [i, page] of pages.entries()) {
    const at = (tables + i) * PAGE;
    page.copy(bytes, at);
    bytes.write('data', at, 'latin1');
    bytes.writeUInt32LE(0, at + 4);
    bytes.writeUInt32LE(sequence, at + PAGE - 4);
  }
  return seal(bytes);
}

/** An entry of the BAT. @param place in the image, in MiB */
export function batEntry(state: number, place = 0): bigint {
  return (BigInt(place) << 20n) | BigInt(state);
}

export interface VhdxFields {
  readonly size: number | bigint;
  readonly blockBytes?: number;
  readonly sectorBytes?: number;
  readonly physicalSectorBytes?: number;
  /** of the file parameters; default: bit 1 if there is a parent */
  readonly flags?: number;
  readonly parent?: Readonly<Record<string, string>>;
  readonly bat: readonly bigint[];
  readonly batBytes?: number;
  readonly header?: HeaderFields;
  readonly log?: Buffer;
  readonly items?: readonly ItemFields[];
  readonly regions?: readonly RegionFields[];
  /** replaces parts of the image at last */
  readonly parts?: readonly (readonly [at: number, bytes: Buffer])[];
}

export type Parts = [at: number, bytes: Buffer][];

/** The parts of an image that are not data; what is between them is zeros. Data begins at `dataMib`. */
export function vhdxParts(fields: VhdxFields): { parts: Parts; dataMib: number } {
  const { size, blockBytes = MIB, sectorBytes = 512, parent, bat, header = {} } = fields;
  const batBytes = fields.batBytes ?? Math.max(MIB, Math.ceil((8 * bat.length) / MIB) * MIB);
  const identifier = Buffer.alloc(520);
  identifier.write('vhdxfile', 0, 'latin1');
  identifier.write('a test', 8, 'utf16le');
  const items: ItemFields[] = [
    { guid: ITEM.parameters, bytes: u32(blockBytes, fields.flags ?? (parent === undefined ? 0 : 2)) },
    { guid: ITEM.size, bytes: u64(size), flags: 6 },
    { guid: ITEM.logicalSector, bytes: u32(sectorBytes), flags: 6 },
    { guid: ITEM.physicalSector, bytes: u32(fields.physicalSectorBytes ?? 4096), flags: 6 },
    ...(parent === undefined ? [] : [{ guid: ITEM.parentLocator, bytes: parentLocator(parent) }]),
    ...(fields.items ?? []),
  ];
  const regions = fields.regions ?? [
    { guid: BAT_GUID, offset: BAT_AT, length: batBytes },
    { guid: METADATA_GUID, offset: METADATA_AT, length: MIB },
  ];
  const logGuid = fields.log === undefined ? null : LOG_GUID;
  const table = regionTable(regions);
  const parts: Parts = [
    [0, identifier],
    [HEADERS_AT[0], vhdxHeader({ logGuid, ...header })],
    [HEADERS_AT[1], vhdxHeader({ logGuid, ...header, sequence: (header.sequence ?? 7) - 1 })],
    [REGIONS_AT[0], table],
    [REGIONS_AT[1], table],
    [LOG_AT, fields.log ?? Buffer.alloc(0)],
    [METADATA_AT, metadataBytes(items)],
    [BAT_AT, u64(...bat)],
    ...(fields.parts ?? []).map(([at, bytes]): [number, Buffer] => [at, bytes]),
  ];
  return { parts, dataMib: (BAT_AT + batBytes) / MIB };
}

/** An image in memory. @param dataBytes after its tables */
export function vhdxBytes(fields: VhdxFields, dataBytes = 0): Buffer {
  const { parts, dataMib } = vhdxParts(fields);
  const bytes = Buffer.alloc(dataMib * MIB + dataBytes);
  for (const [at, part] of parts) part.copy(bytes, at);
  return bytes;
}
