/**
 * Reads the replies of an NBD server from its stream, which may be cut anywhere. The bytes of a read go straight to where
 * they were asked for. Everything is checked against the request before a byte is copied.
 */
import { ProtocolFault } from './faults.js';
import type { Operation, ToldExtent } from './operation.js';
import {
  CHUNK,
  CHUNK_DONE,
  CHUNK_ERROR_BIT,
  CHUNK_HEADER_BYTES,
  CHUNK_MAGIC,
  COMMAND,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
} from './protocol.js';

/** the longest payload of a chunk that is not data: QEMU tells up to 2^17 extents at once */
const MOST_PAYLOAD_BYTES = 4 + 8 * (1 << 17);
const MOST_TEXT_BYTES = 4096;

export interface ReplyOwner {
  readonly isStructured: boolean;
  readonly contextId: number | null;
  /** The operation of a cookie. @throws ProtocolFault if there is none */
  find(high: number, low: number): Operation;
  /** the header of the last part of its reply has come, and a payload follows: the server has done with it */
  ends(operation: Operation): void;
  /** all of its reply has come */
  done(operation: Operation): void;
}

export class ReplyReader {
  readonly #owner: ReplyOwner;
  readonly #header = Buffer.alloc(CHUNK_HEADER_BYTES);
  readonly #simple = this.#header.subarray(0, SIMPLE_REPLY_BYTES);
  /** what comes now goes there */
  #room: Uint8Array = this.#simple;
  #filled = 0;
  /** what to do when the room is full */
  #next: () => void = () => this.#headerCame();
  #operation: Operation | null = null;
  #isLast = false;

  constructor(owner: ReplyOwner) {
    this.#owner = owner;
  }

  /** Where the next bytes go: they can be received there, and then told by `received`. */
  get room(): Uint8Array {
    return this.#filled === 0 ? this.#room : this.#room.subarray(this.#filled);
  }

  /** The first `length` bytes of `room` have been filled. @throws ProtocolFault: the stream is of no use any more */
  received(length: number): void {
    this.#filled += length;
    if (this.#filled === this.#room.length) this.#next();
  }

  /** @throws ProtocolFault: the stream is of no use any more */
  feed(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const length = Math.min(this.#room.length - this.#filled, bytes.length - at);
      this.#room.set(bytes.subarray(at, at + length), this.#filled);
      at += length;
      this.received(length);
    }
  }

  /** @param next called when the room is full; at once if there is no room */
  #read(room: Uint8Array, next: () => void, filled = 0): void {
    this.#room = room;
    this.#filled = filled;
    this.#next = next;
    if (filled === room.length) next();
  }

  #headerCame(): void {
    const magic = this.#header.readUInt32BE(0);
    if (magic === CHUNK_MAGIC && this.#owner.isStructured) {
      return this.#read(this.#header, () => this.#chunkCame(), SIMPLE_REPLY_BYTES);
    }
    if (magic !== SIMPLE_REPLY_MAGIC)
      throw new ProtocolFault(`a reply of the NBD server begins with ${magic.toString(16)}`);
    const operation = this.#find();
    const number = this.#header.readUInt32BE(4);
    const isRead = operation.command === COMMAND.read;
    if ((isRead && this.#owner.isStructured) || (number === 0 && operation.command === COMMAND.blockStatus)) {
      throw new ProtocolFault('the NBD server answers a read without chunks');
    }
    this.#operation = operation;
    this.#isLast = true;
    if (number !== 0) operation.error = { number, text: '' };
    if (number !== 0 || operation.into === null) return this.#chunkDone();
    fill(operation, 0, operation.length);
    this.#read(operation.into, () => this.#chunkDone());
  }

  #find(): Operation {
    return this.#owner.find(this.#header.readUInt32BE(8), this.#header.readUInt32BE(12));
  }

  #chunkCame(): void {
    const operation = this.#find();
    const type = this.#header.readUInt16BE(6);
    const length = this.#header.readUInt32BE(16);
    this.#operation = operation;
    this.#isLast = (this.#header.readUInt16BE(4) & CHUNK_DONE) !== 0;
    if (type === CHUNK.data) return this.#dataCame(operation, length);
    if (length > MOST_PAYLOAD_BYTES) throw new ProtocolFault(`the NBD server sends a chunk of ${length} bytes`);
    if (this.#isLast && length > 0) this.#owner.ends(operation);
    const payload = Buffer.alloc(length);
    this.#read(payload, () => {
      this.#take(operation, type, payload);
      this.#chunkDone();
    });
  }

  /** A chunk that is not data has come. */
  #take(operation: Operation, type: number, payload: Buffer): void {
    if ((type & CHUNK_ERROR_BIT) !== 0) return takeError(operation, payload);
    if (type === CHUNK.none && payload.length === 0 && this.#isLast) return;
    if (type === CHUNK.hole && operation.into !== null && payload.length === 12) return takeHole(operation, payload);
    if (type === CHUNK.blockStatus && operation.command === COMMAND.blockStatus) {
      operation.extents = extentsOf(payload, this.#owner.contextId);
      return;
    }
    throw new ProtocolFault(`the NBD server sends a chunk of type ${type} that was not asked for`);
  }

  #dataCame(operation: Operation, length: number): void {
    const { into } = operation;
    if (into === null || length <= 8) throw new ProtocolFault('the NBD server sends data that was not asked for');
    const place = Buffer.alloc(8);
    this.#read(place, () => {
      const at = startIn(operation, place.readBigUInt64BE(0), length - 8);
      fill(operation, at, length - 8);
      this.#read(into.subarray(at, at + length - 8), () => this.#chunkDone());
    });
  }

  #chunkDone(): void {
    const operation = this.#operation;
    this.#read(this.#simple, () => this.#headerCame());
    if (operation === null || !this.#isLast) return;
    this.#operation = null;
    const { into, error, filled, length } = operation;
    if (into !== null && error === null && !filled.isWhole(length)) {
      throw new ProtocolFault(`the NBD server answers only a part of ${length} bytes`);
    }
    this.#owner.done(operation);
  }
}

/** Where a part of an answer begins in the buffer of a read. */
function startIn({ offset, length }: Operation, start: bigint, bytes: number): number {
  const at = Number(start) - offset;
  if (start > BigInt(Number.MAX_SAFE_INTEGER) || at < 0 || bytes <= 0 || at + bytes > length) {
    throw new ProtocolFault('the NBD server answers bytes outside of the request');
  }
  return at;
}

/** @throws ProtocolFault if some of the bytes have come before */
function fill({ filled }: Operation, at: number, bytes: number): void {
  if (!filled.add(at, bytes)) throw new ProtocolFault('the NBD server answers the same bytes twice');
}

function takeHole(operation: Operation, payload: Buffer): void {
  const bytes = payload.readUInt32BE(8);
  const at = startIn(operation, payload.readBigUInt64BE(0), bytes);
  fill(operation, at, bytes);
  operation.into?.fill(0, at, at + bytes);
}

function takeError(operation: Operation, payload: Buffer): void {
  if (payload.length < 6) throw new ProtocolFault('the NBD server sends an error that is too short');
  const [number, length] = [payload.readUInt32BE(0), payload.readUInt16BE(4)];
  if (number === 0 || length > Math.min(payload.length - 6, MOST_TEXT_BYTES)) {
    throw new ProtocolFault('the NBD server sends an error that contradicts itself');
  }
  operation.error ??= { number, text: payload.toString('utf8', 6, 6 + length) };
}

function extentsOf(payload: Buffer, contextId: number | null): ToldExtent[] {
  const count = (payload.length - 4) / 8;
  if (!Number.isInteger(count) || count < 1 || payload.readUInt32BE(0) !== contextId) {
    throw new ProtocolFault('the NBD server tells extents that were not asked for');
  }
  return Array.from({ length: count }, (_, i) => {
    const extent = { length: payload.readUInt32BE(4 + 8 * i), flags: payload.readUInt32BE(8 + 8 * i) };
    if (extent.length === 0) throw new ProtocolFault('the NBD server tells an empty extent');
    return extent;
  });
}
