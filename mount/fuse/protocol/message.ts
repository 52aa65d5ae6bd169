/**
 * Requests and replies as typed views on a fixed buffer: reading a field is one or two loads, and nothing is allocated
 * per request.
 *
 * u64 fields become Numbers. The kernel's values are below 2^53, except for hostile offsets. Those lose only bits that
 * do not matter, because they are far beyond the end of every disk.
 */
import type { Attributes } from '../../transport/transport.js';
import * as abi from './abi.js';

const TWO_32 = 0x1_0000_0000;

/** A request in a buffer, as words. */
export class Request {
  readonly words: Uint32Array;
  readonly bytes: Buffer;

  /** `buffer` must start at a multiple of 4 within its memory; the message is at its start. */
  constructor(buffer: Buffer) {
    this.bytes = buffer;
    this.words = new Uint32Array(buffer.buffer, buffer.byteOffset, buffer.byteLength >>> 2);
  }

  /** bytes of the whole message, header included */
  get length(): number {
    return this.words[abi.IN_LEN] as number;
  }

  get opcode(): number {
    return this.words[abi.IN_OPCODE] as number;
  }

  get nodeId(): number {
    return this.u64(abi.IN_NODE_ID);
  }

  get uniqueLow(): number {
    return this.words[abi.IN_UNIQUE] as number;
  }

  get uniqueHigh(): number {
    return this.words[abi.IN_UNIQUE + 1] as number;
  }

  get pid(): number {
    return this.words[abi.IN_PID] as number;
  }

  /** The unique without the resend bit: the same for a request and its repetition. */
  get uniqueId(): number {
    return (this.uniqueHigh & ~abi.UNIQUE_RESEND_HIGH) * TWO_32 + this.uniqueLow;
  }

  u32(word: number): number {
    return this.words[word] as number;
  }

  u64(word: number): number {
    return (this.words[word] as number) + (this.words[word + 1] as number) * TWO_32;
  }

  i64(word: number): number {
    return (this.words[word] as number) + ((this.words[word + 1] as number) | 0) * TWO_32;
  }

  /** A field of the body, by its word in the body. */
  bodyU32(word: number): number {
    return this.words[abi.IN_BODY + word] as number;
  }

  bodyU64(word: number): number {
    return this.u64(abi.IN_BODY + word);
  }

  bodyI64(word: number): number {
    return this.i64(abi.IN_BODY + word);
  }

  /** The NUL-terminated name at the start of the body; null if there is none, or it is empty. */
  name(): string | null {
    const end = this.bytes.indexOf(0, abi.IN_HEADER_SIZE);
    if (end <= abi.IN_HEADER_SIZE || end >= this.length) return null;
    return this.bytes.toString('utf8', abi.IN_HEADER_SIZE, end);
  }
}

/** Whether a request reads, writes, zeroes or flushes the bytes of a file. */
export function isIo(opcode: number): boolean {
  return opcode === abi.READ || opcode === abi.WRITE || opcode === abi.FSYNC || opcode === abi.FALLOCATE;
}

/** The least number of body bytes for an opcode; opcodes that are not listed need none. */
const BODY_SIZE: Readonly<Record<number, number>> = {
  [abi.LOOKUP]: 2,
  [abi.FORGET]: abi.FORGET_IN_SIZE,
  [abi.GETATTR]: abi.GETATTR_IN_SIZE,
  [abi.SETATTR]: abi.SETATTR_IN_SIZE,
  [abi.OPEN]: abi.OPEN_IN_SIZE,
  [abi.READ]: abi.RW_IN_SIZE,
  [abi.WRITE]: abi.RW_IN_SIZE,
  [abi.RELEASE]: abi.RELEASE_IN_SIZE,
  [abi.FSYNC]: abi.FSYNC_IN_SIZE,
  [abi.INIT]: abi.INIT_IN_SIZE,
  [abi.OPENDIR]: abi.OPEN_IN_SIZE,
  [abi.READDIR]: abi.RW_IN_SIZE,
  [abi.RELEASEDIR]: abi.RELEASE_IN_SIZE,
  [abi.IOCTL]: abi.IOCTL_IN_SIZE,
  [abi.BATCH_FORGET]: abi.BATCH_FORGET_IN_SIZE,
  [abi.FALLOCATE]: abi.FALLOCATE_IN_SIZE,
  [abi.LSEEK]: abi.LSEEK_IN_SIZE,
};

/**
 * Whether the `received` bytes are a message that can be read without going beyond its end: a header with the right
 * length, the body that its opcode needs, and for WRITE and BATCH_FORGET as much data as their counts announce. The
 * kernel sends only such messages; this check protects against bugs here, and prevents that garbage is served.
 */
export function isWellFormed(request: Request, received: number): boolean {
  if (received < abi.IN_HEADER_SIZE || request.length !== received) return false;
  const body = received - abi.IN_HEADER_SIZE;
  if (body < (BODY_SIZE[request.opcode] ?? 0)) return false;
  switch (request.opcode) {
    case abi.WRITE:
      return request.bodyU32(abi.RW_SIZE) === body - abi.RW_IN_SIZE;
    case abi.BATCH_FORGET:
      return request.bodyU32(0) * abi.BATCH_FORGET_ONE_SIZE <= body - abi.BATCH_FORGET_IN_SIZE;
    default:
      return true;
  }
}

/** Whether the kernel waits for no answer to the opcode. */
export function isOneWay(opcode: number): boolean {
  return opcode === abi.FORGET || opcode === abi.BATCH_FORGET;
}

/** A reply in a buffer; `length` bytes are sent. */
export class Reply {
  readonly words: Uint32Array;
  readonly bytes: Buffer;

  constructor(buffer: Buffer) {
    this.bytes = buffer;
    this.words = new Uint32Array(buffer.buffer, buffer.byteOffset, buffer.byteLength >>> 2);
  }

  get length(): number {
    return this.words[abi.OUT_LEN] as number;
  }

  /** Writes the header. `error` is 0 or −errno; `bodyLength` bytes follow. The unique is that of the request. */
  header(uniqueLow: number, uniqueHigh: number, error: number, bodyLength: number): void {
    const { words } = this;
    words[abi.OUT_LEN] = abi.OUT_HEADER_SIZE + bodyLength;
    words[abi.OUT_ERROR] = error;
    words[abi.OUT_UNIQUE] = uniqueLow;
    words[abi.OUT_UNIQUE + 1] = uniqueHigh;
  }

  /** Sets the body's first `bytes` bytes to zero. */
  clearBody(bytes: number): void {
    this.words.fill(0, abi.OUT_BODY, abi.OUT_BODY + (bytes >>> 2));
  }

  bodyU32(word: number, value: number): void {
    this.words[abi.OUT_BODY + word] = value;
  }

  bodyU64(word: number, value: number): void {
    this.words[abi.OUT_BODY + word] = value >>> 0;
    this.words[abi.OUT_BODY + word + 1] = Math.floor(value / TWO_32);
  }
}

/** Writes a fuse_attr at a word of the body. */
export function writeAttributes(reply: Reply, word: number, a: Attributes): void {
  reply.bodyU64(word, a.nodeId);
  reply.bodyU64(word + 2, a.size);
  reply.bodyU64(word + 4, a.blocks);
  reply.bodyU64(word + 6, a.atimeSec);
  reply.bodyU64(word + 8, a.mtimeSec);
  reply.bodyU64(word + 10, a.ctimeSec);
  reply.bodyU32(word + 12, a.atimeNsec);
  reply.bodyU32(word + 13, a.mtimeNsec);
  reply.bodyU32(word + 14, a.ctimeNsec);
  reply.bodyU32(word + 15, a.mode);
  reply.bodyU32(word + 16, a.links);
  reply.bodyU32(word + 17, a.uid);
  reply.bodyU32(word + 18, a.gid);
  reply.bodyU32(word + 19, 0);
  reply.bodyU32(word + 20, 4096);
  reply.bodyU32(word + 21, 0);
}

/**
 * Appends a fuse_dirent to a body.
 * @returns the body's new length, or −1 if it would exceed `limit` bytes
 */
export function appendDirent(
  reply: Reply,
  bodyLength: number,
  limit: number,
  entry: { nodeId: number; offset: number; type: number; name: Buffer },
): number {
  const size = (abi.DIRENT_HEADER_SIZE + entry.name.length + 7) & ~7;
  if (bodyLength + size > limit) return -1;
  const word = bodyLength >>> 2;
  reply.bytes.fill(0, abi.OUT_HEADER_SIZE + bodyLength, abi.OUT_HEADER_SIZE + bodyLength + size);
  reply.bodyU64(word, entry.nodeId);
  reply.bodyU64(word + 2, entry.offset);
  reply.bodyU32(word + 4, entry.name.length);
  reply.bodyU32(word + 5, entry.type);
  entry.name.copy(reply.bytes, abi.OUT_HEADER_SIZE + bodyLength + abi.DIRENT_HEADER_SIZE);
  return bodyLength + size;
}
