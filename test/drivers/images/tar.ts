/** Writes tar archives by POSIX and by GNU's description, for tests. */

export interface HeaderFields {
  readonly name: string;
  readonly size?: number | bigint;
  readonly type?: string;
  /** `posix`, `gnu` or `v7`; default posix */
  readonly kind?: string;
  /** what is in front of the name (POSIX) */
  readonly prefix?: string;
  /** size as GNU's binary number */
  readonly binarySize?: boolean;
  readonly link?: string;
  /** a checksum of signed bytes */
  readonly signed?: boolean;
  /** changes the block before its checksum is made */
  readonly change?: (block: Buffer) => void;
}

export function tarHeader(fields: HeaderFields): Buffer {
  const { name, size = 0, type = '0', kind = 'posix', prefix = '', link = '' } = fields;
  const block = Buffer.alloc(512);
  block.write(name, 0, 100, 'utf8');
  block.write('0000644\0', 100, 'latin1');
  block.write('0000000\0', 108, 'latin1');
  block.write('0000000\0', 116, 'latin1');
  if (fields.binarySize === true) {
    block.writeUInt8(0x80, 124);
    block.writeBigUInt64BE(BigInt(size), 128);
  } else {
    block.write(`${BigInt(size).toString(8).padStart(11, '0')}\0`, 124, 'latin1');
  }
  block.write('00000000000\0', 136, 'latin1');
  block.write(type, 156, 'latin1');
  block.write(link, 157, 100, 'utf8');
  if (kind === 'posix') block.write('ustar\x0000', 257, 'latin1');
  if (kind === 'gnu') block.write('ustar  \0', 257, 'latin1');
  block.write(prefix, 345, 'utf8');
  fields.change?.(block);
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + (fields.signed && byte > 127 ? byte - 256 : byte), 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** Data, filled up to whole blocks. */
export function tarData(bytes: Uint8Array | string): Buffer {
  const data = Buffer.from(bytes as string);
  return Buffer.concat([data, Buffer.alloc((512 - (data.length % 512)) % 512)]);
}

export function tarMember(name: string, bytes: Uint8Array | string, fields: Partial<HeaderFields> = {}): Buffer {
  return Buffer.concat([tarHeader({ name, size: Buffer.from(bytes as string).length, ...fields }), tarData(bytes)]);
}

/** A pax header for the member that follows. */
export function paxHeader(records: Readonly<Record<string, string>>, type = 'x'): Buffer {
  const text = Object.entries(records).map(([key, value]) => {
    const rest = Buffer.byteLength(` ${key}=${value}\n`);
    let length = rest;
    while (length !== rest + String(length).length) length = rest + String(length).length;
    return `${length} ${key}=${value}\n`;
  });
  return tarMember('pax', text.join(''), { type });
}

export const tarEnd = Buffer.alloc(1024);
