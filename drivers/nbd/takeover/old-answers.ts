/**
 * Finds the answers to what a dead server has sent, in what it had received and in what still comes. An answer is known by
 * its cookie, wherever it is: where the dead server was in the stream is not known.
 */
import { CHUNK_DONE, CHUNK_ERROR_BIT, CHUNK_MAGIC, REPLY_COOKIE_AT, SIMPLE_REPLY_MAGIC } from '../protocol.js';
import { type KeptState, SLOT, type Slot, TAIL_BYTES } from './kept-state.js';

/** the bytes of a header until the end of the cookie */
const HEADER_BYTES = REPLY_COOKIE_AT + 8;
/** between magic and cookie: the only ones in these bytes that may be zeros */
const MOST_ZEROS = 4;

/** A request whose answer is looked for. */
interface Wanted {
  readonly cookie: Buffer;
  /** null: our flush */
  readonly slot: Slot | null;
}

export class OldAnswers {
  readonly #state: KeptState;
  readonly #wanted = new Set<Wanted>();
  /** the last bytes before the zeros in what the dead server had received, and the first ones that came later */
  #before = Buffer.alloc(0);
  #after = Buffer.alloc(0);
  #hasFlushFailed = false;
  /** how many writes had been acknowledged when our flush was sent */
  #acknowledged = 0;

  constructor(state: KeptState, slots: readonly Slot[]) {
    this.#state = state;
    for (const slot of slots) this.#wanted.add({ cookie: cookieBytes(slot.high, slot.low), slot });
  }

  /** nothing is to be waited for any more that was before */
  onWithdrawn: () => void = () => {};

  /** A flush is sent behind the requests of the dead server. */
  expectFlush(high: number, low: number): void {
    this.#acknowledged = this.#state.acknowledged;
    this.#wanted.add({ cookie: cookieBytes(high, low), slot: null });
  }

  /** It cannot be sent. */
  withdrawFlush(): void {
    for (const wanted of this.#wanted) if (wanted.slot === null) this.#wanted.delete(wanted);
    this.onWithdrawn();
  }

  /** Looks in what the dead server has received. */
  lookBack(): void {
    this.#look(this.#state.received);
    this.#state.takeOverReceived();
    this.#before = Buffer.from(this.#state.received.subarray(0, TAIL_BYTES));
  }

  /** More has come, into the buffer. */
  received(length: number): void {
    const { received } = this.#state;
    if (this.#after.length < HEADER_BYTES) this.#lookForCut(received.subarray(TAIL_BYTES, TAIL_BYTES + length));
    this.#look(received.subarray(0, TAIL_BYTES + length));
    this.#state.lookedAt(length);
  }

  /** the requests without an answer */
  get unanswered(): Slot[] {
    return [...this.#wanted].flatMap(({ slot }) => slot ?? []);
  }

  /** Whether the server has all of a request that it has not answered: an answer will come. */
  get mustCome(): boolean {
    return [...this.#wanted].some(({ slot }) => slot === null || slot.state === SLOT.sent);
  }

  get areAll(): boolean {
    return this.#wanted.size === 0;
  }

  #look(bytes: Buffer): void {
    for (const wanted of this.#wanted) {
      const { cookie } = wanted;
      for (let at = bytes.indexOf(cookie); at >= 0; at = bytes.indexOf(cookie, at + 1)) {
        if (at < REPLY_COOKIE_AT) continue;
        if (this.#took(wanted, bytes.subarray(at - REPLY_COOKIE_AT))) break;
      }
    }
  }

  /** @param header has the cookie at its place. @returns whether it is the last part of the answer */
  #took(wanted: Wanted, header: Buffer): boolean {
    const magic = header.readUInt32BE(0);
    const isChunk = magic === CHUNK_MAGIC;
    if (!isChunk && magic !== SIMPLE_REPLY_MAGIC) return false;
    if (isChunk ? (header.readUInt16BE(6) & CHUNK_ERROR_BIT) !== 0 : header.readUInt32BE(4) !== 0) {
      this.#hasFlushFailed ||= wanted.slot === null;
    }
    if (isChunk && (header.readUInt16BE(4) & CHUNK_DONE) === 0) return false;
    this.#answered(wanted);
    return true;
  }

  /** The state knows it at once: this process may die too, and the old connection is ended then. */
  #answered(wanted: Wanted): void {
    this.#wanted.delete(wanted);
    if (wanted.slot !== null) this.#state.set(wanted.slot.index, SLOT.free);
    else if (!this.#hasFlushFailed) this.#state.noteDurable(this.#acknowledged);
  }

  /**
   * Finds a header that was cut: the server died after it had read the first part, and before it had looked at it. That part
   * may end with zeros, which cannot be told from those behind it.
   */
  #lookForCut(more: Buffer): void {
    this.#after = Buffer.concat([this.#after, more.subarray(0, HEADER_BYTES - this.#after.length)]);
    for (let zeros = 0; zeros <= MOST_ZEROS; zeros++) {
      this.#look(Buffer.concat([this.#before, Buffer.alloc(zeros), this.#after]));
    }
  }
}

function cookieBytes(high: number, low: number): Buffer {
  const cookie = Buffer.alloc(8);
  cookie.writeUInt32BE(high, 0);
  cookie.writeUInt32BE(low, 4);
  return cookie;
}
