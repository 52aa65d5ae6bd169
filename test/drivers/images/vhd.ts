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
}

export function vhdFooter(fields: FooterFields): Buffer {
  const { size, type = 2, cookie = 'conectix', version = 0x10000, hidden = 0, bytes = 512 } = fields;
  const footer = Buffer.alloc(512);
  footer.write(cookie, 0, 'latin1');
  footer.writeUInt32BE(2, 8);
  footer.writeUInt32BE(version, 12);
  footer.writeBigUInt64BE(type === 2 ? 0xffffffffffffffffn : 512n, 16);
  footer.write('test', 28, 'latin1');
  footer.writeBigUInt64BE(BigInt(size), 40);
  footer.writeBigUInt64BE(BigInt(size), 48);
  footer.writeUInt32BE(type, 60);
  footer.fill(0x5a, 68, 84);
  footer.writeUInt8(hidden, 85);
  const sum = footer.reduce((total, byte) => total + byte, 0);
  footer.writeUInt32BE(fields.checksum ?? 0xffffffff - sum, 64);
  return footer.subarray(0, bytes);
}
