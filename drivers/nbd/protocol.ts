/**
 * The numbers of the NBD protocol, and the layout of its messages. All fields are big-endian.
 * See https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
 */

/** The greeting of a server. */
export const GREETING = {
  magic: 0x4e42_444d_4147_4943n,
  newstyle: 0x4948_4156_454f_5054n,
  oldstyle: 0x0000_4202_8186_1253n,
};

/** flags of the greeting, and of the client's answer */
export const FIXED_NEWSTYLE = 1;
export const NO_ZEROES = 2;

export const OPTION = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
};
export const OPTION_REPLY_MAGIC = 0x0003_e889_0455_65a9n;
export const OPTION_REPLY = { ack: 1, server: 2, info: 3, metaContext: 4 };
const ERROR_BIT = 2 ** 31;
export const OPTION_ERROR = {
  unsupported: ERROR_BIT + 1,
  policy: ERROR_BIT + 2,
  invalid: ERROR_BIT + 3,
  platform: ERROR_BIT + 4,
  tlsRequired: ERROR_BIT + 5,
  unknown: ERROR_BIT + 6,
  shutdown: ERROR_BIT + 7,
  blockSizeRequired: ERROR_BIT + 8,
};
export const INFO = { export: 0, name: 1, description: 2, blockSize: 3 };

/** what an export can do */
export const EXPORT_FLAG = {
  hasFlags: 1,
  readOnly: 2,
  flush: 4,
  fua: 8,
  trim: 32,
  writeZeroes: 64,
  dontFragment: 128,
  multiConn: 256,
};

export const COMMAND = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4, writeZeroes: 6, blockStatus: 7 };
export const COMMAND_FLAG = { fua: 1, noHole: 2, dontFragment: 4, requestOne: 8 };

export const REQUEST_BYTES = 28;
export const REQUEST_MAGIC = 0x2560_9513;

/** A cookie: the same bytes come back with each reply to the request. */
export interface Cookie {
  /** random, one for a connection */
  readonly high: number;
  /** counted */
  readonly low: number;
}

export interface RequestHeader {
  readonly flags: number;
  readonly command: number;
  readonly cookie: Cookie;
  readonly offset: number;
  readonly length: number;
}

/** Writes the header of a request. */
export function writeRequest(to: Buffer, at: number, { flags, command, cookie, offset, length }: RequestHeader): void {
  to.writeUInt32BE(REQUEST_MAGIC, at);
  to.writeUInt16BE(flags, at + 4);
  to.writeUInt16BE(command, at + 6);
  to.writeUInt32BE(cookie.high, at + 8);
  to.writeUInt32BE(cookie.low, at + 12);
  writeOffset(to, at + 16, offset);
  to.writeUInt32BE(length, at + 24);
}

/** Writes a safe integer as two words, without a BigInt for each request. */
export function writeOffset(to: Buffer, at: number, offset: number): void {
  to.writeUInt32BE(Math.floor(offset / 2 ** 32), at);
  to.writeUInt32BE(offset % 2 ** 32, at + 4);
}

export const SIMPLE_REPLY_MAGIC = 0x6744_6698;
export const CHUNK_MAGIC = 0x668e_33ef;
export const SIMPLE_REPLY_BYTES = 16;
export const CHUNK_HEADER_BYTES = 20;
/** where the cookie is in the header of either reply */
export const REPLY_COOKIE_AT = 8;
/** the last chunk of a reply */
export const CHUNK_DONE = 1;
export const CHUNK = { none: 0, data: 1, hole: 2, blockStatus: 5 };
/** set in the types of chunks that report an error */
export const CHUNK_ERROR_BIT = 2 ** 15;

/** flags of an extent of `base:allocation` */
export const ALLOCATION = { hole: 1, zero: 2 };
