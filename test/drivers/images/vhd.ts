/** Writes VHD footers by the specification, for tests. */

export interface FooterFields {
  readonly size: number | bigint;
  readonly type?: number;
  readonly cookie?: string;
  readonly version?: number;
  readonly hidden?: number;
  /** 511 as old writers did; default 512 */
  readonly bytes?: number;
  readonly checksum?: number;
  readonly creator?: string;
  readonly creatorVersion?: number;
  /** cylinders, heads, sectors of a track */
  readonly geometry?: readonly [number, number, number];
}

export function vhdFooter(fields: FooterFields): Buffer {
  const { size, type = 2, cookie = 'conectix', version = 0x10000, hidden = 0, bytes = 512 } = fields;
  const footer = Buffer.alloc(512);
  footer.write(cookie, 0, 'latin1');
  footer.writeUInt32BE(2, 8);
  footer.writeUInt32BE(version, 12);
  footer.writeBigUInt64BE(type === 2 ? 0xffffffffffffffffn : 512n, 16);
  footer.write(fields.creator ?? 'test', 28, 'latin1');
  footer.writeUInt32BE(fields.creatorVersion ?? 0x10003, 32);
  const [cylinders, heads, sectors] = fields.geometry ?? [0, 0, 0];
  footer.writeUInt16BE(cylinders, 56);
  footer.writeUInt8(heads, 58);
  footer.writeUInt8(sectors, 59);
  footer.writeBigUInt64BE(BigInt(size), 40);
  footer.writeBigUInt64BE(BigInt(size), 48);
  footer.writeUInt32BE(type, 60);
  footer.fill(0x5a, 68, 84);
  footer.writeUInt8(hidden, 85);
  const sum = footer.reduce((total, byte) => total + byte, 0);
  footer.writeUInt32BE(fields.checksum ?? 0xffffffff - sum, 64);
  return footer.subarray(0, bytes);
}

export interface DynamicFields extends FooterFields {
  readonly blockBytes?: number;
  /** entries of the table; default: as the size needs */
  readonly entries?: number;
  /** where blocks are, in the order of the image, with their bitmap's first bytes (default: all ones) */
  readonly placed?: readonly { readonly block: number; readonly bits?: Buffer; readonly data: Buffer }[];
  /** of a differencing image; the id of a VHD of `vhdFooter` is 5a5a… */
  readonly parentUuid?: string;
  readonly locators?: readonly { readonly code: string; readonly name: Buffer; readonly space?: number }[];
  /** the locators are behind the blocks; default: before them */
  readonly hasLocatorsLast?: boolean;
  /** with a batmap, as XenServer writes it */
  readonly hasBatmap?: boolean;
  /** default: true */
  readonly hasFooter?: boolean;
  readonly tableAt?: number;
}

const roundUp = (bytes: number, unit: number): number => Math.ceil(bytes / unit) * unit;

/** A dynamic VHD (type 3, the default), or a differencing one (type 4). */
export function dynamicVhd(fields: DynamicFields): Buffer {
  const { blockBytes = 4096, placed = [], locators = [], tableAt = 1536, hasFooter = true } = fields;
  const entries = fields.entries ?? Math.ceil(Number(fields.size) / blockBytes);
  const footer = vhdFooter({ type: 3, ...fields, bytes: 512 });
  const header = Buffer.alloc(1024);
  header.write('cxsparse', 0, 'latin1');
  header.fill(0xff, 8, 16);
  header.writeBigUInt64BE(BigInt(tableAt), 16);
  header.writeUInt32BE(0x10000, 24);
  header.writeUInt32BE(entries, 28);
  header.writeUInt32BE(blockBytes, 32);
  if (fields.parentUuid !== undefined) header.write(fields.parentUuid, 40, 'hex');
  const table = Buffer.alloc(roundUp(4 * entries, 512), 0xff);
  let end = tableAt + table.length;
  const parts: [at: number, bytes: Buffer][] = [];
  const batmapAt = end;
  if (fields.hasBatmap) end += 512 + roundUp(entries / 8, 512);
  const placeLocators = (): void => {
    for (const [i, { code, name, space = 512 }] of locators.entries()) {
      const at = 576 + i * 24;
      header.write(code, at, 'latin1');
      header.writeUInt32BE(space, at + 4);
      header.writeUInt32BE(name.length, at + 8);
      header.writeBigUInt64BE(BigInt(end), at + 16);
      parts.push([end, name]);
      end += 512;
    }
  };
  if (fields.hasLocatorsLast !== true) placeLocators();
  if (fields.hasBatmap) parts.push([batmapAt, batmapOf(batmapAt, entries)]);
  const bitmapBytes = roundUp(blockBytes / 512 / 8, 512);
  for (const { block, bits = Buffer.alloc(bitmapBytes, 0xff), data } of placed) {
    const start = roundUp(end + bitmapBytes, 4096) - bitmapBytes;
    table.writeUInt32BE(start / 512, 4 * block);
    parts.push([start, bits], [start + bitmapBytes, data]);
    end = start + bitmapBytes + blockBytes;
  }
  if (fields.hasLocatorsLast) placeLocators();
  const image = Buffer.alloc(end + 512);
  header.writeUInt32BE(0xffffffff - header.reduce((total, byte) => total + byte, 0), 36);
  footer.copy(image, 0);
  header.copy(image, 512);
  table.copy(image, tableAt);
  for (const [at, bytes] of parts) bytes.copy(image, at);
  if (hasFooter) footer.copy(image, end);
  return hasFooter ? image : image.subarray(0, end);
}

function batmapOf(at: number, entries: number): Buffer {
  const map = Buffer.alloc(roundUp(entries / 8, 512));
  const header = Buffer.alloc(512);
  header.write('tdbatmap', 0, 'latin1');
  header.writeBigUInt64BE(BigInt(at + 512), 8);
  header.writeUInt32BE(map.length / 512, 16);
  header.writeUInt32BE(0x00010002, 20);
  header.writeUInt32BE(0xffffffff, 24);
  return Buffer.concat([header, map]);
}
