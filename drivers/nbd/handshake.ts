/**
 * The negotiation with an NBD server (fixed newstyle): from the greeting to the facts of an export.
 *
 *      greeting ─► [STARTTLS] ─► STRUCTURED_REPLY ─► SET_META_CONTEXT ─► GO ─► transmission
 *                                                                     └─► EXPORT_NAME, for old servers
 *
 * All that comes is bounded before it is used.
 */
import { FusetapError } from '../errors.js';
import { quoted } from '../quote.js';
import { ProtocolFault, saidText } from './faults.js';
import {
  EXPORT_FLAG,
  FIXED_NEWSTYLE,
  GREETING,
  INFO,
  NO_ZEROES,
  OPTION,
  OPTION_ERROR,
  OPTION_REPLY,
  OPTION_REPLY_MAGIC,
} from './protocol.js';

/** the longest data of one reply to an option: two texts have 4096 bytes each, by the protocol */
const MOST_OPTION_BYTES = 16 << 10;
/** replies to one option; of the many that LIST may have, only the first are read */
const MOST_OPTION_REPLIES = 64;
/** all that a server may send before the transmission */
const MOST_HANDSHAKE_BYTES = 256 << 10;
/** names in a message */
const MOST_NAMES = 8;
/** if a server does not tell: every server takes requests of that length */
const DEFAULT_PAYLOAD_BYTES = 32 << 20;
const MOST_BLOCK_BYTES = 1 << 16;
const ALLOCATION_CONTEXT = 'base:allocation';

/** The bytes of the stream, in order. */
export interface ByteStream {
  /** the next bytes, all of them; rejects if the stream ends before */
  take(length: number): Promise<Buffer>;
  send(bytes: Buffer): void;
  encrypt(): Promise<void>;
}

/** What a server says of an export. */
export interface ExportFacts {
  readonly size: number;
  /** see EXPORT_FLAG */
  readonly flags: number;
  /** offsets and lengths of requests are multiples of it */
  readonly minimumBytes: number;
  /** the longest read or write */
  readonly maximumBytes: number;
  /** replies come in chunks */
  readonly isStructured: boolean;
  /** the id of the extents of allocation on this connection; null: the server does not tell them */
  readonly contextId: number | null;
}

export interface HandshakeWish {
  readonly exportName: string;
  readonly withTls: boolean;
}

/** @throws FusetapError if the server refuses; ProtocolFault; the error of the stream */
export async function negotiate(stream: ByteStream, wish: HandshakeWish): Promise<ExportFacts> {
  return await new Negotiation(stream, wish).run();
}

interface OptionReply {
  readonly type: number;
  readonly data: Buffer;
}

class Negotiation {
  readonly #stream: ByteStream;
  readonly #wish: HandshakeWish;
  #skipsZeroes = false;
  #takenBytes = 0;

  constructor(stream: ByteStream, wish: HandshakeWish) {
    this.#stream = stream;
    this.#wish = wish;
  }

  async run(): Promise<ExportFacts> {
    await this.#greet();
    if (this.#wish.withTls) await this.#startTls();
    const isStructured = (await this.#last(OPTION.structuredReply, Buffer.alloc(0))).type === OPTION_REPLY.ack;
    const contextId = isStructured ? await this.#askContext() : null;
    const facts = await this.#go();
    return { ...facts, isStructured, contextId };
  }

  /** @throws ProtocolFault if the server has sent too much */
  async #take(length: number): Promise<Buffer> {
    this.#takenBytes += length;
    if (this.#takenBytes > MOST_HANDSHAKE_BYTES) {
      throw new ProtocolFault(`the NBD server sends more than ${MOST_HANDSHAKE_BYTES} bytes before the transmission`);
    }
    return await this.#stream.take(length);
  }

  async #greet(): Promise<void> {
    const magic = (await this.#take(8)).readBigUInt64BE(0);
    if (magic !== GREETING.magic) throw noNbdServer();
    const style = (await this.#take(8)).readBigUInt64BE(0);
    const flags = style === GREETING.newstyle ? (await this.#take(2)).readUInt16BE(0) : 0;
    if ((flags & FIXED_NEWSTYLE) === 0) {
      if (style !== GREETING.newstyle && style !== GREETING.oldstyle) throw noNbdServer();
      throw new FusetapError('UNSUPPORTED', 'the NBD server speaks only the oldstyle protocol', {
        hint: 'use nbdkit, qemu-nbd, or nbd-server 3.10 or later',
      });
    }
    this.#skipsZeroes = (flags & NO_ZEROES) !== 0;
    const answer = Buffer.alloc(4);
    answer.writeUInt32BE(FIXED_NEWSTYLE | (this.#skipsZeroes ? NO_ZEROES : 0));
    this.#stream.send(answer);
  }

  async #startTls(): Promise<void> {
    const { type, data } = await this.#last(OPTION.startTls, Buffer.alloc(0));
    if (type !== OPTION_REPLY.ack) {
      throw new FusetapError('DENIED', `the NBD server does not encrypt${said(data)}`, {
        hint: 'let it offer TLS, or use nbd: if the network is safe',
      });
    }
    await this.#stream.encrypt();
  }

  /** @returns the id of the context; null if the server does not have it */
  async #askContext(): Promise<number | null> {
    const name = Buffer.from(this.#wish.exportName);
    const query = Buffer.from(ALLOCATION_CONTEXT);
    const replies = await this.#ask(
      OPTION.setMetaContext,
      Buffer.concat([length32(name), name, number32(1), length32(query), query]),
    );
    const context = replies.find(({ type }) => type === OPTION_REPLY.metaContext);
    if (context === undefined || context.data.length < 4) return null;
    return context.data.toString('utf8', 4) === ALLOCATION_CONTEXT ? context.data.readUInt32BE(0) : null;
  }

  async #go(): Promise<Omit<ExportFacts, 'isStructured' | 'contextId'>> {
    const name = Buffer.from(this.#wish.exportName);
    const wanted = Buffer.alloc(4);
    wanted.writeUInt16BE(1, 0);
    wanted.writeUInt16BE(INFO.blockSize, 2);
    const replies = await this.#ask(OPTION.go, Buffer.concat([length32(name), name, wanted]));
    const last = replies.at(-1);
    if (last?.type === OPTION_ERROR.unsupported) return await this.#exportName(name);
    if (last?.type !== OPTION_REPLY.ack) throw await this.#refusal(last);
    const infos = replies.filter(({ type, data }) => type === OPTION_REPLY.info && data.length >= 2);
    const find = (kind: number, bytes: number): Buffer | undefined =>
      infos.find(({ data }) => data.readUInt16BE(0) === kind && data.length === bytes)?.data;
    const about = find(INFO.export, 12);
    if (about === undefined) throw new ProtocolFault('the NBD server does not tell the size of the export');
    const facts = {
      ...sizeOf(about.readBigUInt64BE(2), about.readUInt16BE(10)),
      ...blocksOf(find(INFO.blockSize, 14)),
    };
    if (facts.size % facts.minimumBytes === 0) return facts;
    throw new FusetapError('UNSUPPORTED', `the export has ${facts.size} bytes, in blocks of ${facts.minimumBytes}`, {
      hint: 'give it a size of whole blocks on the server',
    });
  }

  /** The way of old servers, which have no errors: they close the connection. */
  async #exportName(name: Buffer): Promise<Omit<ExportFacts, 'isStructured' | 'contextId'>> {
    this.#sendOption(OPTION.exportName, name);
    const answer = await this.#take(10).catch((error: unknown) => {
      throw new FusetapError('NOT_FOUND', `the NBD server has no export ${quoted(this.#wish.exportName)}`, {
        cause: error,
      });
    });
    if (!this.#skipsZeroes) await this.#take(124);
    return { ...sizeOf(answer.readBigUInt64BE(0), answer.readUInt16BE(8)), ...blocksOf(undefined) };
  }

  async #refusal(reply: OptionReply | undefined): Promise<FusetapError> {
    const { exportName } = this.#wish;
    const why = said(reply?.data ?? Buffer.alloc(0));
    switch (reply?.type) {
      case OPTION_ERROR.unknown: {
        const names = await this.#list();
        const known = names.slice(0, MOST_NAMES).map(quoted).join(', ');
        return new FusetapError('NOT_FOUND', `the NBD server has no export ${quoted(exportName)}${why}`, {
          hint:
            names.length === 0
              ? 'it lists no exports'
              : `its exports are ${known}${names.length > MOST_NAMES ? ' …' : ''}`,
        });
      }
      case OPTION_ERROR.tlsRequired:
        return new FusetapError('DENIED', `the NBD server wants encryption${why}`, {
          hint: 'write nbds: in place of nbd:',
        });
      case OPTION_ERROR.policy:
        return new FusetapError('DENIED', `the NBD server refuses export ${quoted(exportName)}${why}`, {
          hint: 'its policy forbids it to this client',
        });
      case OPTION_ERROR.shutdown:
        return new FusetapError('BUSY', `the NBD server is going down${why}`, { hint: 'try again later' });
      default:
        return new FusetapError('FAILED', `the NBD server refuses export ${quoted(exportName)}${why}`, {
          hint: `its answer is ${(reply?.type ?? 0) % 2 ** 31}`,
        });
    }
  }

  /** The first names of exports that the server tells; empty if it does not. */
  async #list(): Promise<string[]> {
    const names: string[] = [];
    try {
      this.#sendOption(OPTION.list, Buffer.alloc(0));
      for await (const { type, data } of this.#replies(OPTION.list)) {
        if (type !== OPTION_REPLY.server || data.length < 4) continue;
        const length = data.readUInt32BE(0);
        if (length <= data.length - 4) names.push(data.toString('utf8', 4, 4 + length));
        // only so many are shown, and nothing else is asked on this connection
        if (names.length > MOST_NAMES) break;
      }
    } catch {
      // what has come is shown all the same
    }
    return names;
  }

  /** The last reply to an option: the only one that most options have. */
  async #last(option: number, data: Buffer): Promise<OptionReply> {
    const replies = await this.#ask(option, data);
    return replies.at(-1) as OptionReply;
  }

  /** Sends an option. @returns its replies; the last one ends it, or is an error */
  async #ask(option: number, data: Buffer): Promise<OptionReply[]> {
    this.#sendOption(option, data);
    const replies: OptionReply[] = [];
    for await (const reply of this.#replies(option)) replies.push(reply);
    return replies;
  }

  /** The replies to an option that was sent, as they come. */
  async *#replies(option: number): AsyncGenerator<OptionReply, void> {
    for (let count = 0; count < MOST_OPTION_REPLIES; count++) {
      const header = await this.#take(20);
      const length = header.readUInt32BE(16);
      if (header.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC || header.readUInt32BE(8) !== option) {
        throw new ProtocolFault('the NBD server answers something else than it was asked');
      }
      if (length > MOST_OPTION_BYTES) throw new ProtocolFault(`the NBD server answers ${length} bytes to an option`);
      const reply = { type: header.readUInt32BE(12), data: await this.#take(length) };
      yield reply;
      if (reply.type === OPTION_REPLY.ack || reply.type >= 2 ** 31) return;
    }
    throw new ProtocolFault(`the NBD server sends more than ${MOST_OPTION_REPLIES} replies to an option`);
  }

  #sendOption(option: number, data: Buffer): void {
    const header = Buffer.alloc(16);
    header.writeBigUInt64BE(GREETING.newstyle, 0);
    header.writeUInt32BE(option, 8);
    header.writeUInt32BE(data.length, 12);
    this.#stream.send(Buffer.concat([header, data]));
  }
}

function sizeOf(size: bigint, flags: number): { size: number; flags: number } {
  if (size > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new FusetapError('UNSUPPORTED', `the export has ${size} bytes`, { hint: 'a disk has fewer than 2^53 bytes' });
  }
  if (size === 0n) throw new FusetapError('USAGE', 'the export is empty', { hint: 'give it a size on the server' });
  return { size: Number(size), flags: flags & (1 | Object.values(EXPORT_FLAG).reduce((all, flag) => all | flag, 0)) };
}

function blocksOf(info: Buffer | undefined): { minimumBytes: number; maximumBytes: number } {
  if (info === undefined) return { minimumBytes: 1, maximumBytes: DEFAULT_PAYLOAD_BYTES };
  const [minimumBytes, most] = [info.readUInt32BE(2), info.readUInt32BE(10)];
  const isPower = minimumBytes > 0 && (minimumBytes & (minimumBytes - 1)) === 0;
  if (!isPower || minimumBytes > MOST_BLOCK_BYTES || most < minimumBytes) {
    throw new ProtocolFault(`the NBD server takes requests of ${minimumBytes} to ${most} bytes`);
  }
  const maximumBytes = Math.min(most, DEFAULT_PAYLOAD_BYTES);
  return { minimumBytes, maximumBytes: maximumBytes - (maximumBytes % minimumBytes) };
}

function said(text: Buffer): string {
  return saidText(text.toString('utf8', 0, 200));
}

function number32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function length32(of: Buffer): Buffer {
  return number32(of.length);
}

function noNbdServer(): FusetapError {
  return new FusetapError('UNSUPPORTED', 'who answers there is no NBD server', { hint: 'check host, port and socket' });
}
