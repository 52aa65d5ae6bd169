/**
 * The negotiation with a client (fixed newstyle): which export, which replies, encrypted or not.
 *
 *      greeting ─► options, each answered: STARTTLS, LIST, INFO, STRUCTURED_REPLY, SET_META_CONTEXT … ─► GO or EXPORT_NAME
 *
 * What an older or newer client asks beyond this is refused, and it goes on without. All that comes is bounded before it
 * is used. See https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
 */
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
} from '../../drivers/nbd/protocol.js';

/** the longest data of an option: a name of 4096 bytes, and a few queries */
const MOST_OPTION_BYTES = 64 << 10;
/** a client that asks more than this does not want to come to an end */
const MOST_OPTIONS = 128;
const ALLOCATION_CONTEXT = 'base:allocation';
/** the number of the context on each connection: there is only one */
export const CONTEXT_ID = 1;
/** the longest read or write */
export const MOST_PAYLOAD_BYTES = 32 << 20;
/** after the facts of an export for clients of the first version */
const OLD_PADDING_BYTES = 124;

export interface Offer {
  /** the name of the export; the empty name means it too */
  readonly name: string;
  readonly description: string;
  readonly sizeBytes: number;
  /** see EXPORT_FLAG */
  readonly flags: number;
  readonly withTls: boolean;
}

/** The stream of a client. */
export interface ClientStream {
  /** the next bytes; null if the client has gone */
  take(length: number): Promise<Buffer | null>;
  send(bytes: Buffer): void;
  /** Sends the bytes, and encrypts what follows. @returns false if that failed */
  encrypt(bytes: Buffer): Promise<boolean>;
}

/** What client and server have agreed on. */
export interface Agreement {
  /** what the client takes for the size of the disk */
  readonly sizeBytes: number;
  /** replies come in chunks */
  readonly isStructured: boolean;
  /** the client may ask for extents */
  readonly hasContext: boolean;
}

/** @returns null if the client has left, or is not worth to be listened to any more */
export async function negotiate(stream: ClientStream, offer: Offer): Promise<Agreement | null> {
  return await new Negotiation(stream, offer).run();
}

interface Option {
  readonly number: number;
  readonly data: Buffer;
}

/** What follows an option. */
type Next = 'option' | 'transmission' | 'end';

class Negotiation {
  readonly #stream: ClientStream;
  readonly #offer: Offer;
  #isSecure: boolean;
  #isStructured = false;
  #hasContext = false;
  #sendsZeroes = true;

  constructor(stream: ClientStream, offer: Offer) {
    this.#stream = stream;
    this.#offer = offer;
    this.#isSecure = !offer.withTls;
  }

  async run(): Promise<Agreement | null> {
    if (!(await this.#greet())) return null;
    for (let count = 0; count < MOST_OPTIONS; count++) {
      const option = await this.#nextOption();
      if (option === null) return null;
      const next = this.#isSecure ? this.#answer(option) : await this.#answerPlain(option);
      if (next === 'end') return null;
      if (next === 'transmission') return this.#agreement;
    }
    return null;
  }

  get #agreement(): Agreement {
    const { sizeBytes } = this.#offer;
    return { sizeBytes, isStructured: this.#isStructured, hasContext: this.#hasContext };
  }

  async #greet(): Promise<boolean> {
    const greeting = Buffer.alloc(18);
    greeting.writeBigUInt64BE(GREETING.magic, 0);
    greeting.writeBigUInt64BE(GREETING.newstyle, 8);
    greeting.writeUInt16BE(FIXED_NEWSTYLE | NO_ZEROES, 16);
    this.#stream.send(greeting);
    const flags = (await this.#stream.take(4))?.readUInt32BE(0);
    if (flags === undefined || (flags & ~(FIXED_NEWSTYLE | NO_ZEROES)) !== 0) return false;
    this.#sendsZeroes = (flags & NO_ZEROES) === 0;
    return true;
  }

  async #nextOption(): Promise<Option | null> {
    const header = await this.#stream.take(16);
    if (header === null || header.readBigUInt64BE(0) !== GREETING.newstyle) return null;
    const [number, length] = [header.readUInt32BE(8), header.readUInt32BE(12)];
    if (length > MOST_OPTION_BYTES) return null;
    const data = await this.#stream.take(length);
    return data && { number, data };
  }

  /** Before the stream is encrypted: nothing of the disk is told. */
  async #answerPlain({ number, data }: Option): Promise<Next> {
    if (number === OPTION.exportName) return 'end';
    if (number === OPTION.abort) return this.#abort();
    if (number !== OPTION.startTls) {
      return this.#refuse(number, OPTION_ERROR.tlsRequired, 'this export is only offered with encryption');
    }
    if (data.byteLength > 0) return this.#refuse(number, OPTION_ERROR.invalid, 'STARTTLS has no data');
    this.#isSecure = await this.#stream.encrypt(replyTo(number, OPTION_REPLY.ack));
    return this.#isSecure ? 'option' : 'end';
  }

  #answer({ number, data }: Option): Next {
    switch (number) {
      case OPTION.exportName:
        return this.#oldGo(data);
      case OPTION.abort:
        return this.#abort();
      case OPTION.list:
        return this.#list(data);
      case OPTION.startTls:
        return this.#refuse(number, OPTION_ERROR.policy, 'no encryption, or encrypted already');
      case OPTION.info:
      case OPTION.go:
        return this.#describe(number, data);
      case OPTION.structuredReply:
        if (data.byteLength > 0) return this.#refuse(number, OPTION_ERROR.invalid, 'STRUCTURED_REPLY has no data');
        this.#isStructured = true;
        return this.#acknowledge(number);
      case OPTION.listMetaContext:
      case OPTION.setMetaContext:
        return this.#contexts(number, data);
      default:
        return this.#refuse(number, OPTION_ERROR.unsupported, 'this server does not have the option');
    }
  }

  #abort(): Next {
    this.#stream.send(replyTo(OPTION.abort, OPTION_REPLY.ack));
    return 'end';
  }

  #acknowledge(option: number): Next {
    this.#stream.send(replyTo(option, OPTION_REPLY.ack));
    return 'option';
  }

  #refuse(option: number, error: number, text: string): Next {
    this.#stream.send(replyTo(option, error, Buffer.from(text)));
    return 'option';
  }

  /** DF is about chunks: without them it must not be shown. */
  get #flags(): number {
    const { flags } = this.#offer;
    return this.#isStructured ? flags : flags & ~EXPORT_FLAG.dontFragment;
  }

  #isOffered(name: string): boolean {
    return name === '' || name === this.#offer.name;
  }

  /** EXPORT_NAME cannot report an error: the connection just ends. */
  #oldGo(data: Buffer): Next {
    if (!this.#isOffered(data.toString())) return 'end';
    const facts = Buffer.alloc(10 + (this.#sendsZeroes ? OLD_PADDING_BYTES : 0));
    facts.writeBigUInt64BE(BigInt(this.#offer.sizeBytes), 0);
    facts.writeUInt16BE(this.#flags, 8);
    this.#stream.send(facts);
    return 'transmission';
  }

  #list(data: Buffer): Next {
    if (data.byteLength > 0) return this.#refuse(OPTION.list, OPTION_ERROR.invalid, 'LIST has no data');
    this.#stream.send(replyTo(OPTION.list, OPTION_REPLY.server, withLength(this.#offer.name)));
    return this.#acknowledge(OPTION.list);
  }

  /** INFO and GO. */
  #describe(option: number, data: Buffer): Next {
    const fields = new Fields(data);
    const name = fields.text();
    const asked = new Set<number | null>();
    for (let count = fields.number(2) ?? 0; count > 0; count--) asked.add(fields.number(2));
    if (name === null || asked.has(null) || !fields.isAtEnd) {
      return this.#refuse(option, OPTION_ERROR.invalid, 'lengths that do not fit');
    }
    if (!this.#isOffered(name)) return this.#refuse(option, OPTION_ERROR.unknown, 'no such export');
    this.#tellFacts(option, asked);
    this.#acknowledge(option);
    return option === OPTION.go ? 'transmission' : 'option';
  }

  #tellFacts(option: number, asked: ReadonlySet<number | null>): void {
    const { name, description, sizeBytes } = this.#offer;
    const tell = (info: number, data: Buffer): void => {
      this.#stream.send(replyTo(option, OPTION_REPLY.info, Buffer.concat([uint16(info), data])));
    };
    const facts = Buffer.alloc(10);
    facts.writeBigUInt64BE(BigInt(sizeBytes), 0);
    facts.writeUInt16BE(this.#flags, 8);
    tell(INFO.export, facts);
    if (asked.has(INFO.name)) tell(INFO.name, Buffer.from(name));
    if (asked.has(INFO.description)) tell(INFO.description, Buffer.from(description));
    // any byte can be asked for; pages are faster
    const [minimum, preferred] = [1, 4096];
    const sizes = Buffer.alloc(12);
    for (const [i, value] of [minimum, preferred, MOST_PAYLOAD_BYTES].entries()) sizes.writeUInt32BE(value, 4 * i);
    tell(INFO.blockSize, sizes);
  }

  /** LIST_META_CONTEXT and SET_META_CONTEXT. */
  #contexts(option: number, data: Buffer): Next {
    const isSet = option === OPTION.setMetaContext;
    if (isSet) this.#hasContext = false;
    if (!this.#isStructured) return this.#refuse(option, OPTION_ERROR.invalid, 'first ask for STRUCTURED_REPLY');
    const fields = new Fields(data);
    const name = fields.text();
    const queries: (string | null)[] = [];
    for (let count = fields.number(4) ?? 0; count > 0 && queries.at(-1) !== null; count--) queries.push(fields.text());
    if (name === null || queries.includes(null) || !fields.isAtEnd) {
      return this.#refuse(option, OPTION_ERROR.invalid, 'lengths that do not fit');
    }
    if (!this.#isOffered(name)) return this.#refuse(option, OPTION_ERROR.unknown, 'no such export');
    const isAsked = queries.includes(ALLOCATION_CONTEXT);
    const isListed = !isSet && (queries.length === 0 || queries.includes('base:'));
    if (isAsked || isListed) {
      const context = Buffer.concat([uint32(isSet ? CONTEXT_ID : 0), Buffer.from(ALLOCATION_CONTEXT)]);
      this.#stream.send(replyTo(option, OPTION_REPLY.metaContext, context));
      if (isSet) this.#hasContext = true;
    }
    return this.#acknowledge(option);
  }
}

/** Fields of an option, which may end too early. */
class Fields {
  readonly #data: Buffer;
  #at = 0;

  constructor(data: Buffer) {
    this.#data = data;
  }

  get isAtEnd(): boolean {
    return this.#at === this.#data.byteLength;
  }

  /** @param bytes 2 or 4 @returns null if the data end before */
  number(bytes: 2 | 4): number | null {
    if (this.#at + bytes > this.#data.byteLength) return null;
    const value = this.#data.readUIntBE(this.#at, bytes);
    this.#at += bytes;
    return value;
  }

  /** A text with its length before it. @returns null if the data end before */
  text(): string | null {
    const length = this.number(4);
    if (length === null || this.#at + length > this.#data.byteLength) return null;
    const text = this.#data.toString('utf8', this.#at, this.#at + length);
    this.#at += length;
    return text;
  }
}

function replyTo(option: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(20);
  header.writeBigUInt64BE(OPTION_REPLY_MAGIC, 0);
  header.writeUInt32BE(option, 8);
  header.writeUInt32BE(type, 12);
  header.writeUInt32BE(data.byteLength, 16);
  return Buffer.concat([header, data]);
}

function withLength(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([uint32(bytes.byteLength), bytes]);
}

function uint16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
