/**
 * FUSE messages laid out by hand: every field at its byte offset, from the protocol's structs. Independent of
 * mount/fuse/protocol/abi.ts on purpose, so that a wrong number there cannot agree with itself.
 */

/** Fields of a struct by byte offset. Negative numbers are written as two's complement. */
export interface Fields {
  readonly u16?: Readonly<Record<number, number>>;
  readonly u32?: Readonly<Record<number, number>>;
  readonly u64?: Readonly<Record<number, number | bigint>>;
}

/** A struct of `size` bytes; all other bytes are zero. */
export function struct(size: number, { u16 = {}, u32 = {}, u64 = {} }: Fields): Buffer {
  const bytes = Buffer.alloc(size);
  for (const [at, value] of Object.entries(u16)) bytes.writeUInt16LE(value, Number(at));
  for (const [at, value] of Object.entries(u32)) bytes.writeUInt32LE(value >>> 0, Number(at));
  for (const [at, value] of Object.entries(u64)) bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)), Number(at));
  return bytes;
}

export interface Header {
  readonly opcode: number;
  readonly unique?: bigint;
  readonly nodeId?: number | bigint;
  readonly pid?: number;
}

/** fuse_in_header (40 bytes), then the body. */
export function message({ opcode, unique = 4n, nodeId = 1, pid = 1 }: Header, body: Buffer = Buffer.alloc(0)): Buffer {
  const header = struct(40, { u32: { 0: 40 + body.length, 4: opcode, 32: pid }, u64: { 8: unique, 16: nodeId } });
  return Buffer.concat([header, body]);
}

export const name = (text: string): Buffer => Buffer.from(`${text}\0`);

export const openIn = (flags: number): Buffer => struct(8, { u32: { 0: flags } });

export const readIn = (offset: number | bigint, size: number, flags = 0): Buffer =>
  struct(40, { u64: { 8: offset }, u32: { 16: size, 32: flags } });

export const writeIn = (offset: number | bigint, data: Buffer, flags = 0): Buffer =>
  Buffer.concat([readIn(offset, data.length, flags), data]);

export const releaseIn = (fh: bigint): Buffer => struct(24, { u64: { 0: fh } });

export const fsyncIn = (fh: bigint, flags = 0): Buffer => struct(16, { u64: { 0: fh }, u32: { 8: flags } });

export const fallocateIn = (mode: number, offset: number | bigint, length: number | bigint): Buffer =>
  struct(32, { u64: { 8: offset, 16: length }, u32: { 24: mode } });

export const lseekIn = (offset: number | bigint, whence: number): Buffer =>
  struct(24, { u64: { 8: offset }, u32: { 16: whence } });

export const ioctlIn = (cmd: number, outSize: number): Buffer => struct(32, { u32: { 12: cmd, 28: outSize } });

export const forgetIn = (count: number | bigint): Buffer => struct(8, { u64: { 0: count } });

export const batchForgetIn = (entries: readonly (readonly [nodeId: number, count: number])[]): Buffer =>
  Buffer.concat([
    struct(8, { u32: { 0: entries.length } }),
    ...entries.map(([nodeId, count]) => struct(16, { u64: { 0: nodeId, 8: count } })),
  ]);

/** bits of `valid` in fuse_setattr_in */
export const SET = { mode: 1, uid: 2, gid: 4, size: 8, atime: 16, mtime: 32, atimeNow: 128, mtimeNow: 256 } as const;

export const setattrIn = (valid: number, fields: Fields = {}): Buffer =>
  struct(88, { ...fields, u32: { ...fields.u32, 0: valid } });

/** fuse_out_header (16 bytes), then the body. */
export function reply(unique: bigint, error: number, body: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([struct(16, { u32: { 0: 16 + body.length, 4: error }, u64: { 8: unique } }), body]);
}

export interface Attr {
  readonly ino: number;
  readonly size: number;
  readonly blocks: number;
  readonly mode: number;
  readonly nlink?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly atime: readonly [sec: number, nsec: number];
  readonly mtime: readonly [sec: number, nsec: number];
  readonly ctime: readonly [sec: number, nsec: number];
}

/** fuse_attr */
export function attr({ ino, size, blocks, mode, nlink = 1, uid = 0, gid = 0, atime, mtime, ctime }: Attr): Buffer {
  return struct(88, {
    u64: { 0: ino, 8: size, 16: blocks, 24: atime[0], 32: mtime[0], 40: ctime[0] },
    u32: { 48: atime[1], 52: mtime[1], 56: ctime[1], 60: mode, 64: nlink, 68: uid, 72: gid, 80: 4096 },
  });
}

/** fuse_dirent with its name, padded to 8 bytes */
export function dirent(ino: number, next: number, type: number, text: string): Buffer {
  const head = struct(24, { u64: { 0: ino, 8: next }, u32: { 16: text.length, 20: type } });
  const size = Math.ceil((24 + text.length) / 8) * 8;
  return Buffer.concat([head, Buffer.from(text)], size);
}

export interface ParsedReply {
  readonly error: number;
  readonly unique: bigint;
  readonly body: Buffer;
  /** the whole message */
  readonly bytes: Buffer;
}

/** Splits the bytes written to a device into replies. @throws Error if the lengths do not add up */
export function parseReplies(written: Buffer): ParsedReply[] {
  const replies: ParsedReply[] = [];
  for (let at = 0; at < written.length; ) {
    const length = written.length - at < 16 ? 0 : written.readUInt32LE(at);
    if (length < 16 || at + length > written.length) throw new Error(`a reply of ${length} bytes at ${at} cannot be`);
    const bytes = written.subarray(at, at + length);
    const [error, unique] = [bytes.readInt32LE(4), bytes.readBigUInt64LE(8)];
    replies.push({ error, unique, body: bytes.subarray(16), bytes });
    at += length;
  }
  return replies;
}
