/**
 * The requests of one client, after the negotiation: parsed as they come, done, and answered in any order.
 *
 *      chunk ──► header ──► (data of a write) ──► ExportedFile ──► reply ──┐ those of one chunk, or of one turn of the
 *        ▲                                                                 ▼ event loop, are sent together
 *        └── the socket is paused while too many requests, or too many bytes of replies, are under way
 */
import type { Socket } from 'node:net';
import { constants } from 'node:os';
import { TLSSocket } from 'node:tls';
import { errnoOf } from '../../drivers/errors.js';
import {
  ALLOCATION,
  CHUNK,
  CHUNK_DONE,
  CHUNK_ERROR_BIT,
  CHUNK_HEADER_BYTES,
  CHUNK_MAGIC,
  COMMAND,
  COMMAND_FLAG,
  REQUEST_BYTES,
  REQUEST_MAGIC,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
  writeOffset,
} from '../../drivers/nbd/protocol.js';
import { Awake } from './awake.js';
import { DirectReceiver } from './direct-receiver.js';
import type { ExportedFile } from './exported-file.js';
import { giveMemory, HEAD_BYTES, takeMemory } from './memory.js';
import { type Agreement, CONTEXT_ID, MOST_PAYLOAD_BYTES } from './negotiation.js';

const { errno: E } = constants;

/** of one client */
const MOST_UNDER_WAY = 64;
const MOST_BYTES_UNDER_WAY = 32 << 20;
/** of replies that the client has not read yet */
const MOST_UNREAD_BYTES = 16 << 20;
/** for a client that has left, to read the last replies */
const MOST_LINGER_MS = 60_000;

/** the numbers that the protocol has for errors */
const ERRORS: ReadonlyMap<number, number> = new Map([
  [E.EPERM, 1],
  [E.EACCES, 1],
  [E.EROFS, 1],
  [E.EIO, 5],
  [E.ENOMEM, 12],
  [E.EINVAL, 22],
  [E.ENOSPC, 28],
  [E.EFBIG, 28],
  [E.EDQUOT, 28],
  [E.EOVERFLOW, 75],
  [E.EOPNOTSUPP, 95],
]);
const OTHER_ERROR = 5;

interface Request {
  readonly flags: number;
  readonly command: number;
  readonly cookieHigh: number;
  readonly cookieLow: number;
  readonly offset: number;
  readonly length: number;
}

/** A write whose data has not come completely. */
interface Partial {
  readonly request: Request;
  /** of the pool */
  readonly memory: Buffer;
  /** the part of it that the data need */
  readonly data: Buffer;
  have: number;
}

export class Transmission {
  readonly #socket: Socket;
  readonly #file: ExportedFile;
  readonly #agreement: Agreement;
  /** what has come and is not parsed yet */
  #chunks: Buffer[] = [];
  #chunkBytes = 0;
  #partial: Partial | null = null;
  #underWay = 0;
  #bytesUnderWay = 0;
  /** of the failed flushes of the file */
  #seenFailures: number;
  #isCorked = false;
  #isTaking = false;
  readonly #awake = new Awake();
  /** null for an encrypted stream */
  readonly #direct: DirectReceiver | null;
  #isBlocked = false;
  /** the client sends no more; what it has sent may still have to be parsed */
  #isInputOver = false;
  /** nothing is parsed any more */
  #isOver = false;
  #ended: () => void = () => {};
  /** resolves when all that the client asked for is done, its replies are sent or cannot be, and its socket is closed */
  readonly done: Promise<void>;

  constructor(socket: Socket, file: ExportedFile, agreement: Agreement) {
    this.#socket = socket;
    this.#file = file;
    this.#agreement = agreement;
    this.#direct = socket instanceof TLSSocket ? null : new DirectReceiver(socket);
    this.#seenFailures = file.failures.count;
    this.done = new Promise((resolve) => {
      this.#ended = resolve;
    });
  }

  /** @param first what has come already */
  begin(first: Buffer): void {
    const socket = this.#socket;
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.on('end', () => {
      this.#isInputOver = true;
      this.#advance();
    });
    socket.on('close', () => this.finish());
    socket.on('drain', () => this.#advance());
    if (socket.closed) return this.finish();
    if (first.byteLength > 0) this.#take(first);
    if (!this.#isBlocked) socket.resume();
  }

  /** Takes no more requests; those under way are answered. */
  finish(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#chunks = [];
    if (this.#underWay === 0) this.#end();
  }

  #end(): void {
    const socket = this.#socket;
    this.#uncork();
    if (socket.closed) return this.#ended();
    socket.once('close', () => this.#ended());
    socket.end(() => socket.destroy());
    // it may never read the last replies
    setTimeout(() => socket.destroy(), MOST_LINGER_MS).unref();
  }

  #take(chunk: Buffer): void {
    if (this.#isOver) return;
    this.#chunks.push(chunk);
    this.#chunkBytes += chunk.byteLength;
    this.#isTaking = true;
    this.#advance();
    this.#isTaking = false;
    this.#uncork();
    if (this.#underWay > 0) this.#awake.rest();
  }

  /** Parses what has come, as far as there is room for more requests. */
  #advance(): void {
    while (!this.#isOver && this.#hasRoom()) {
      if (!(this.#partial === null ? this.#parseRequest() : this.#fillPartial())) break;
    }
    const isBlocked = !this.#hasRoom();
    if (this.#isInputOver && !isBlocked) this.finish();
    if (isBlocked === this.#isBlocked || this.#isOver) return;
    this.#isBlocked = isBlocked;
    if (isBlocked) this.#socket.pause();
    else this.#socket.resume();
  }

  #hasRoom(): boolean {
    return (
      this.#underWay < MOST_UNDER_WAY &&
      this.#bytesUnderWay < MOST_BYTES_UNDER_WAY &&
      this.#socket.writableLength < MOST_UNREAD_BYTES
    );
  }

  /** @returns false if more must come first */
  #parseRequest(): boolean {
    if (this.#chunkBytes < REQUEST_BYTES) return false;
    const header = this.#shift(REQUEST_BYTES);
    if (header.readUInt32BE(0) !== REQUEST_MAGIC) {
      // where the next request begins is unknown
      this.finish();
      return false;
    }
    const request: Request = {
      flags: header.readUInt16BE(4),
      command: header.readUInt16BE(6),
      cookieHigh: header.readUInt32BE(8),
      cookieLow: header.readUInt32BE(12),
      offset: header.readUInt32BE(16) * 2 ** 32 + header.readUInt32BE(20),
      length: header.readUInt32BE(24),
    };
    if (request.command === COMMAND.disconnect) this.finish();
    else if (request.command !== COMMAND.write) this.#do(request, null);
    else if (request.length > MOST_PAYLOAD_BYTES) this.finish();
    else this.#parseWrite(request);
    return true;
  }

  #parseWrite(request: Request): void {
    const { length } = request;
    const [first] = this.#chunks;
    // most often the data are in one chunk: they need not be copied
    if (length === 0 || (first !== undefined && first.byteLength >= length)) {
      this.#do(request, this.#shift(length));
      return;
    }
    const memory = takeMemory(length);
    this.#partial = { request, memory, data: memory.subarray(HEAD_BYTES, HEAD_BYTES + length), have: 0 };
  }

  #fillPartial(): boolean {
    const partial = this.#partial;
    const [first] = this.#chunks;
    if (partial === null) return false;
    const { data, request, memory } = partial;
    const missing = data.byteLength - partial.have;
    if (first === undefined) {
      const received = this.#direct?.receive(data.subarray(partial.have)) ?? 0;
      if (received === 0) return false;
      partial.have += received;
    } else {
      const part = this.#shift(Math.min(first.byteLength, missing));
      data.set(part, partial.have);
      partial.have += part.byteLength;
    }
    if (partial.have < data.byteLength) return true;
    this.#partial = null;
    this.#do(request, data, memory);
    return true;
  }

  /** Takes bytes from the front; there must be so many. */
  #shift(length: number): Buffer {
    this.#chunkBytes -= length;
    const [first] = this.#chunks;
    if (first === undefined) return Buffer.alloc(0);
    if (first.byteLength > length) {
      this.#chunks[0] = first.subarray(length);
      return first.subarray(0, length);
    }
    if (first.byteLength === length) {
      this.#chunks.shift();
      return first;
    }
    const all = Buffer.concat(this.#chunks);
    this.#chunks = [all.subarray(length)];
    return all.subarray(0, length);
  }

  /** @param memory what the data are in, to be given back to the pool */
  #do(request: Request, data: Buffer | null, memory: Buffer | null = null): void {
    const errno = this.#refusal(request);
    if (errno !== 0) return this.#fail(request, errno);
    switch (request.command) {
      case COMMAND.read:
        return this.#read(request);
      case COMMAND.write:
        return this.#write(request, data as Buffer, memory);
      case COMMAND.flush:
        return this.#whenDone(request, this.#flush());
      case COMMAND.blockStatus:
        return this.#tellExtents(request);
      default:
        return this.#whenDone(request, this.#zero(request));
    }
  }

  /** @returns the errno with which the request is refused; 0: it is done */
  #refusal({ flags, command, offset, length }: Request): number {
    const allowed = FLAGS.get(command);
    if (allowed === undefined || (flags & ~allowed) !== 0) return E.EINVAL;
    if (command === COMMAND.flush) return 0;
    const isWriting = command !== COMMAND.read && command !== COMMAND.blockStatus;
    if (isWriting && this.#file.readOnly) return E.EPERM;
    // the disk may have grown or shrunk since the client came
    const size = Math.min(this.#agreement.sizeBytes, this.#file.size);
    if (offset + length > size) return isWriting ? E.ENOSPC : E.EINVAL;
    if (command === COMMAND.read && length > MOST_PAYLOAD_BYTES) return E.EINVAL;
    if (command === COMMAND.blockStatus && (length === 0 || !this.#agreement.hasContext)) return E.EINVAL;
    return 0;
  }

  /** No call uses the memory of a write that has failed: each has returned. */
  #write(request: Request, data: Buffer, memory: Buffer | null): void {
    const underWay = this.#file.write(data, request.offset, isDurable(request));
    const giveBack = (): void => {
      if (memory !== null) giveMemory(memory);
    };
    if (underWay === null) giveBack();
    this.#whenDone(request, underWay?.finally(giveBack) ?? null);
  }

  #read(request: Request): void {
    const { offset, length } = request;
    if (length === 0) return this.#succeed(request);
    const headBytes = this.#agreement.isStructured ? CHUNK_HEADER_BYTES + 8 : SIMPLE_REPLY_BYTES;
    const memory = takeMemory(length);
    const underWay = this.#file.read(memory.subarray(HEAD_BYTES, HEAD_BYTES + length), offset);
    const answer = (): void => {
      const reply = memory.subarray(HEAD_BYTES - headBytes, HEAD_BYTES + length);
      if (this.#agreement.isStructured) {
        writeChunkHeader(reply, request, { type: CHUNK.data, length: 8 + length });
        writeOffset(reply, CHUNK_HEADER_BYTES, offset);
      } else writeSimpleReply(reply, request, 0);
      this.#send(reply, () => giveMemory(memory));
    };
    if (underWay === null) answer();
    else this.#track(request, underWay.then(answer));
  }

  #zero({ command, flags, offset, length }: Request): Promise<void> {
    if (command === COMMAND.trim) return this.#file.trim(offset, length);
    const punch = (flags & COMMAND_FLAG.noHole) === 0;
    return this.#file.zero(offset, length, { punch, durable: (flags & COMMAND_FLAG.fua) !== 0 });
  }

  /** A flush that failed is told once to each client: any of them may have written what is lost. */
  async #flush(): Promise<void> {
    const { failures } = this.#file;
    const unseen = failures.count > this.#seenFailures;
    try {
      await this.#file.flush();
    } finally {
      this.#seenFailures = this.#file.failures.count;
    }
    if (unseen) throw failures.last;
  }

  #tellExtents(request: Request): void {
    const { offset, length, flags } = request;
    const answer = async (): Promise<void> => {
      const extents = await this.#file.extents(offset, length);
      const told = (flags & COMMAND_FLAG.requestOne) === 0 ? extents : extents.slice(0, 1);
      const reply = Buffer.alloc(CHUNK_HEADER_BYTES + 4 + 8 * told.length);
      writeChunkHeader(reply, request, { type: CHUNK.blockStatus, length: 4 + 8 * told.length });
      reply.writeUInt32BE(CONTEXT_ID, CHUNK_HEADER_BYTES);
      for (const [i, extent] of told.entries()) {
        reply.writeUInt32BE(extent.length, CHUNK_HEADER_BYTES + 4 + 8 * i);
        reply.writeUInt32BE(extent.hole ? ALLOCATION.hole | ALLOCATION.zero : 0, CHUNK_HEADER_BYTES + 8 + 8 * i);
      }
      this.#send(reply);
    };
    this.#track(request, answer());
  }

  /** Answers without data when the work is done; null: it is done. */
  #whenDone(request: Request, work: Promise<unknown> | null): void {
    if (work === null) this.#succeed(request);
    else
      this.#track(
        request,
        work.then(() => this.#succeed(request)),
      );
  }

  /** Counts a request as under way until the work has ended, which answers it unless it fails. */
  #track(request: Request, work: Promise<void>): void {
    const bytes = hasData(request) ? request.length : 0;
    this.#underWay += 1;
    this.#bytesUnderWay += bytes;
    const ended = (): void => {
      this.#underWay -= 1;
      this.#bytesUnderWay -= bytes;
      if (!this.#isOver) this.#advance();
      else if (this.#underWay === 0) this.#end();
    };
    work.catch((error: unknown) => this.#fail(request, errnoOf(error))).then(ended);
  }

  #succeed(request: Request): void {
    const isChunk = this.#agreement.isStructured && request.command === COMMAND.read;
    const reply = Buffer.allocUnsafe(isChunk ? CHUNK_HEADER_BYTES : SIMPLE_REPLY_BYTES);
    if (isChunk) writeChunkHeader(reply, request, { type: CHUNK.none, length: 0 });
    else writeSimpleReply(reply, request, 0);
    this.#send(reply);
  }

  #fail(request: Request, errno: number): void {
    const error = ERRORS.get(errno) ?? OTHER_ERROR;
    const { command } = request;
    const isChunk = this.#agreement.isStructured && (command === COMMAND.read || command === COMMAND.blockStatus);
    const reply = Buffer.alloc(isChunk ? CHUNK_HEADER_BYTES + 6 : SIMPLE_REPLY_BYTES);
    if (isChunk) {
      writeChunkHeader(reply, request, { type: CHUNK_ERROR_BIT + 1, length: 6 });
      reply.writeUInt32BE(error, CHUNK_HEADER_BYTES);
    } else writeSimpleReply(reply, request, error);
    this.#send(reply);
  }

  /** Sends a reply with the others of this turn of the event loop. @param sent called when nobody needs its bytes */
  #send(reply: Buffer, sent?: () => void): void {
    const socket = this.#socket;
    if (socket.destroyed) return sent?.();
    if (!this.#isCorked) {
      this.#isCorked = true;
      socket.cork();
      if (!this.#isTaking) setImmediate(() => this.#uncork());
    }
    socket.write(reply, sent);
  }

  #uncork(): void {
    if (!this.#isCorked) return;
    this.#isCorked = false;
    this.#socket.uncork();
    if (this.#underWay === 0 && !this.#isOver) this.#awake.stay();
  }
}

/** the flags that a command may have */
const FLAGS: ReadonlyMap<number, number> = new Map([
  [COMMAND.read, COMMAND_FLAG.fua | COMMAND_FLAG.dontFragment],
  [COMMAND.write, COMMAND_FLAG.fua],
  [COMMAND.flush, COMMAND_FLAG.fua],
  [COMMAND.trim, COMMAND_FLAG.fua],
  [COMMAND.writeZeroes, COMMAND_FLAG.fua | COMMAND_FLAG.noHole],
  [COMMAND.blockStatus, COMMAND_FLAG.fua | COMMAND_FLAG.requestOne],
]);

const hasData = ({ command }: Request): boolean => command === COMMAND.read || command === COMMAND.write;

const isDurable = ({ flags }: Request): boolean => (flags & COMMAND_FLAG.fua) !== 0;

function writeSimpleReply(to: Buffer, { cookieHigh, cookieLow }: Request, error: number): void {
  to.writeUInt32BE(SIMPLE_REPLY_MAGIC, 0);
  to.writeUInt32BE(error, 4);
  to.writeUInt32BE(cookieHigh, 8);
  to.writeUInt32BE(cookieLow, 12);
}

/** The header of the only chunk of a reply. */
function writeChunkHeader(
  to: Buffer,
  { cookieHigh, cookieLow }: Request,
  { type, length }: { readonly type: number; readonly length: number },
): void {
  to.writeUInt32BE(CHUNK_MAGIC, 0);
  to.writeUInt16BE(CHUNK_DONE, 4);
  to.writeUInt16BE(type, 6);
  to.writeUInt32BE(cookieHigh, 8);
  to.writeUInt32BE(cookieLow, 12);
  to.writeUInt32BE(length, 16);
}
