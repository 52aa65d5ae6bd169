/**
 * Requests that a thread serves on the spot, because their disk is a window: plain data and a few system calls.
 *
 *      offset   0                4016        4080      4096                    4096 + 512 KiB
 *               ├────────────────┼───────────┼─────────┼──────── data ─────────┤
 *      request                   └ in_header + write_in ┘└ bytes to write        read(2) puts it here
 *      reply                                 └ out_header┘└ bytes read           one write(2) sends it
 *
 * One resident buffer a thread. Data lies at the start of a page both ways and is never moved. All fields of a request
 * are taken before the reply's header is written over its last 16 bytes.
 */
import type { Window } from '../../../drivers/driver.js';
import {
  allocateWindow,
  flushWindow,
  prefetchWindow,
  readWindow,
  readWindowNoWait,
  seekWindow,
  writeWindow,
  type Zeroing,
  zeroWindow,
} from '../../../drivers/window-sync.js';
import { E, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } from '../../../system/libc.js';
import { PAGE_BYTES } from '../../../system/page.js';
import { allocateResident, type Resident } from '../../../system/resident.js';
import { DISCARD, FLUSH, NOT_COUNTED, READ, WRITE } from '../../ledger/counters.js';
import type { Ledger } from '../../ledger/ledger.js';
import { pagesOf, RamGrowth } from '../../ram/growth.js';
import { writesDurably } from '../../transport/file-rules.js';
import * as abi from '../protocol/abi.js';
import { Reply, Request } from '../protocol/message.js';
import { MAPPED_BYTES, writeMapped } from './mapped-write.js';
import { SPLICE_BYTES, type SpliceReply } from './splice-reply.js';
import type { ThreadGate } from './thread-control.js';
import { NO_TURNS, type WriteTurns } from './write-turns.js';

const REQUEST_START = PAGE_BYTES - abi.IN_HEADER_SIZE - abi.RW_IN_SIZE;
const REPLY_START = PAGE_BYTES - abi.OUT_HEADER_SIZE;

/** A window as threads know it. */
export interface ServedWindow {
  readonly window: Window;
  /** the same for writes that have to be durable (O_DSYNC, O_SYNC) */
  readonly durably: Window;
  readonly ledgerIndex: number;
  /** false where the file system has no RWF_NOWAIT: reads then go straight ahead */
  readonly canReadNoWait: boolean;
  /** where its first byte is in this process's memory (mapped-windows.ts); 0: nowhere */
  readonly mappedAt: number;
  /** the number of its image among those whose writes take turns (write-turns.ts), or NO_TURNS */
  readonly turns: number;
}

/** What a thread can do besides; each may be missing. */
export interface WindowServerOptions {
  /** has the keeper look at the ledger, where this thread asks for memory for a file; missing: no bound */
  askMemory?: (nodeId: number) => void;
  /** mapped memory is written, for the first time in a while */
  tellMapped?: () => void;
  /** sends large replies by itself; missing: none */
  splice?: SpliceReply;
  /** where threads take turns; missing: there is one thread, and it does not copy */
  turns?: WriteTurns;
}

/** A read that is still to be answered. */
export interface DeferredRead {
  readonly uniqueLow: number;
  readonly uniqueHigh: number;
  readonly offset: number;
  readonly size: number;
}

/** What serve answers when the request is not for a thread. */
export const NOT_SERVED = -1;
/** What serve answers when the reply has gone already. */
export const SENT = -2;
/** What serve answers to a read whose bytes are on their way from the disk: finishRead is to answer it. */
export const DEFERRED = -3;

/** larger reads are few, and worth a thread that waits */
const DEFERRED_BYTES = 64 << 10;

export class WindowServer {
  readonly #resident: Resident;
  readonly #punching: Zeroing;
  readonly #zeroing: Zeroing;
  readonly #ledger: Ledger;
  readonly #gate: ThreadGate;
  readonly #growth: RamGrowth | null;
  readonly request: Request;
  readonly #reply: Reply;
  /** where read(2) puts a request, and how much it may be */
  readonly requestAddress: number;
  readonly requestLimit: number;
  readonly replyAddress: number;
  readonly #dataAddress: number;
  /** of the request that was served last: as what it counts, and its bytes or −errno */
  kind: number = NOT_COUNTED;
  result = 0;
  /** whether reads that lack bytes may be DEFERRED */
  mayDefer = false;

  readonly #splice: SpliceReply | null;
  readonly #tellMapped: (() => void) | null;
  readonly #turns: WriteTurns | null;

  constructor(ledger: Ledger, gate: ThreadGate, { askMemory, tellMapped, splice, turns }: WindowServerOptions = {}) {
    this.#ledger = ledger;
    this.#gate = gate;
    this.#splice = splice ?? null;
    this.#tellMapped = tellMapped ?? null;
    this.#turns = turns ?? null;
    const ask = askMemory && (() => askMemory(this.request.nodeId));
    this.#growth = ask ? new RamGrowth({ ledger, ask, beforeWaiting: () => gate.givePermit() }) : null;
    this.#resident = allocateResident(PAGE_BYTES + abi.MAX_WRITE);
    // only ever read, as the source of zeros
    const zeros = allocateResident(16 * PAGE_BYTES);
    this.#punching = { punch: true, zeros };
    this.#zeroing = { punch: false, zeros };
    this.request = new Request(this.#resident.bytes.subarray(REQUEST_START));
    this.#reply = new Reply(this.#resident.bytes.subarray(REPLY_START));
    this.requestAddress = this.#resident.address + REQUEST_START;
    this.requestLimit = this.#resident.bytes.length - REQUEST_START;
    this.replyAddress = this.#resident.address + REPLY_START;
    this.#dataAddress = this.#resident.address + PAGE_BYTES;
  }

  /** @returns the length of the reply to send, or NOT_SERVED */
  serve(served: ServedWindow): number {
    this.kind = NOT_COUNTED;
    switch (this.request.opcode) {
      case abi.READ:
        this.kind = READ;
        return this.#read(served);
      case abi.WRITE:
        this.kind = WRITE;
        return this.#write(served);
      case abi.FSYNC:
        this.kind = FLUSH;
        return this.#fsync(served);
      case abi.FALLOCATE:
        return this.#fallocate(served);
      case abi.LSEEK:
        return this.#lseek(served);
      default:
        return NOT_SERVED;
    }
  }

  /** A reply of no more than an error, for any request. `error` is 0 or −errno. */
  answer(error: number): number {
    const { uniqueLow, uniqueHigh } = this.request;
    this.result = error;
    this.#reply.header(uniqueLow, uniqueHigh, error, 0);
    return abi.OUT_HEADER_SIZE;
  }

  #read({ window, canReadNoWait }: ServedWindow): number {
    const { request } = this;
    const offset = request.bodyU64(abi.RW_OFFSET);
    const size = Math.min(request.bodyU32(abi.RW_SIZE), abi.MAX_WRITE);
    const { uniqueLow, uniqueHigh } = request;
    const wanted = Math.min(size, window.size - offset);
    // where a page may have to come from a disk, it is read with RWF_NOWAIT first
    if (wanted >= SPLICE_BYTES && (window.kind === 'memory' || !canReadNoWait)) {
      this.#reply.header(uniqueLow, uniqueHigh, 0, wanted);
      if (this.#splice?.send(window, this.replyAddress, offset, wanted)) {
        this.result = wanted;
        return SENT;
      }
    }
    let n: number;
    if (canReadNoWait) {
      n = readWindowNoWait(window, this.#dataAddress, offset, size);
      if (n === -E.EAGAIN && this.mayDefer && size <= DEFERRED_BYTES) {
        prefetchWindow(window, offset, size);
        return DEFERRED;
      }
      if (n === -E.EAGAIN) {
        this.#gate.givePermit();
        n = readWindow(window, this.#dataAddress, offset, size);
      }
    } else {
      n = readWindow(window, this.#dataAddress, offset, size);
    }
    return this.#answerRead(uniqueLow, uniqueHigh, n);
  }

  /**
   * Answers a read that was DEFERRED.
   * @param mayWait false: only if all of it is there by now
   * @returns the length of the reply to send, or NOT_SERVED
   */
  finishRead({ window }: ServedWindow, read: DeferredRead, mayWait: boolean): number {
    const { offset, size } = read;
    const n = (mayWait ? readWindow : readWindowNoWait)(window, this.#dataAddress, offset, size);
    if (n === -E.EAGAIN && !mayWait) return NOT_SERVED;
    this.kind = READ;
    return this.#answerRead(read.uniqueLow, read.uniqueHigh, n);
  }

  #answerRead(uniqueLow: number, uniqueHigh: number, n: number): number {
    const bytes = Math.max(0, n);
    this.result = n;
    this.#reply.header(uniqueLow, uniqueHigh, Math.min(0, n), bytes);
    return abi.OUT_HEADER_SIZE + bytes;
  }

  #write(served: ServedWindow): number {
    const { request } = this;
    const { ledgerIndex } = served;
    const window = writesDurably(request.bodyU32(abi.RW_FLAGS)) ? served.durably : served.window;
    if (window.durable) this.#gate.givePermit();
    const offset = request.bodyU64(abi.RW_OFFSET);
    const size = request.bodyU32(abi.RW_SIZE);
    if (window.kind === 'memory' && !this.#mayFill(window, ledgerIndex, offset, size)) return this.answer(-E.ENOSPC);
    const n = this.#writeInTurn(served, window, offset, size);
    if (n < 0) {
      this.#ledger.noteFailedWrite(ledgerIndex);
      return this.answer(n);
    }
    this.#ledger.noteWrite(ledgerIndex, Date.now());
    return this.#answerU64(n, abi.WRITE_OUT_SIZE);
  }

  /**
   * @param window that of `served` that is to be written through
   * @returns how much was written, or −errno where nothing was
   */
  #writeInTurn(served: ServedWindow, window: Window, offset: number, size: number): number {
    const hasTurn = this.#beginTurn(served, offset, size);
    try {
      const begun = hasTurn ? this.#writeMapped(served, offset, size) : 0;
      if (begun > 0 && begun === size) return begun;
      const rest = writeWindow(window, this.#dataAddress + begun, offset + begun, size - begun);
      return begun === 0 ? rest : begun + Math.max(0, rest);
    } finally {
      if (hasTurn) this.#turns?.end();
    }
  }

  /** Waits for writes that overlap. @returns whether a turn was taken, which must be ended */
  #beginTurn({ window, turns }: ServedWindow, offset: number, length: number): boolean {
    if (turns === NO_TURNS || this.#turns === null || window.readOnly) return false;
    const inside = Math.min(length, window.size - offset);
    if (inside <= 0) return false;
    while (!this.#turns.tryBegin(turns, window.start + offset, inside)) this.#gate.givePermit();
    return true;
  }

  /** @returns how much of the beginning was written; 0: use pwrite */
  #writeMapped(served: ServedWindow, offset: number, size: number): number {
    if (served.mappedAt === 0 || size < MAPPED_BYTES) return 0;
    if (this.#gate.noteMapped()) this.#tellMapped?.();
    if (this.#turns?.mayCopy(served.turns) !== true) return 0;
    return writeMapped(served, this.#dataAddress, offset, size);
  }

  #fsync({ window, ledgerIndex }: ServedWindow): number {
    this.#gate.givePermit();
    const error = flushWindow(window);
    if (error < 0) this.#ledger.noteFlushError(ledgerIndex, -error);
    // which handles were told of a failure is the main thread's to know
    if (this.#ledger.flushErrors(ledgerIndex).count > 0) return NOT_SERVED;
    return this.answer(0);
  }

  #fallocate(served: ServedWindow): number {
    const { request } = this;
    const { window, ledgerIndex } = served;
    const offset = request.bodyU64(abi.FALLOCATE_OFFSET);
    const length = request.bodyU64(abi.FALLOCATE_LENGTH);
    if (window.kind !== 'memory') this.#gate.givePermit();
    let result: number;
    switch (request.bodyU32(abi.FALLOCATE_MODE)) {
      case 0:
      case FALLOC_FL_KEEP_SIZE:
        if (window.kind === 'memory' && offset + length <= window.size) {
          if (!this.#mayFill(window, ledgerIndex, offset, length)) return this.answer(-E.ENOSPC);
        }
        result = allocateWindow(window, offset, length);
        this.#note(ledgerIndex, result);
        return this.answer(result);
      case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
        result = this.#zero(served, offset, length, this.#punching);
        break;
      case FALLOC_FL_ZERO_RANGE:
      case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
        result = this.#zero(served, offset, length, this.#zeroing);
        break;
      default:
        return this.answer(-E.EOPNOTSUPP);
    }
    this.#note(ledgerIndex, result);
    this.kind = DISCARD;
    const answer = this.answer(result);
    if (result === 0) this.result = Math.max(0, Math.min(length, window.size - offset));
    return answer;
  }

  #note(ledgerIndex: number, result: number): void {
    if (result === 0) this.#ledger.noteWrite(ledgerIndex, Date.now());
    else this.#ledger.noteFailedWrite(ledgerIndex);
  }

  #zero(served: ServedWindow, offset: number, length: number, how: Zeroing): number {
    const hasTurn = this.#beginTurn(served, offset, length);
    try {
      return zeroWindow(served.window, offset, length, how);
    } finally {
      if (hasTurn) this.#turns?.end();
    }
  }

  #lseek({ window }: ServedWindow): number {
    const { request } = this;
    const position = seekWindow(window, request.bodyU64(abi.LSEEK_OFFSET), request.bodyU32(abi.LSEEK_WHENCE));
    if (position < 0) return this.answer(position);
    return this.#answerU64(position, abi.LSEEK_OUT_SIZE);
  }

  /** Whether memory may be taken for a range, should there be holes in it. */
  #mayFill(window: Window, ledgerIndex: number, offset: number, length: number): boolean {
    if (this.#growth === null || this.#ledger.takeCredit(ledgerIndex, pagesOf(offset, length))) return true;
    return window.readOnly || this.#growth.isAllowed(window, ledgerIndex, offset, length);
  }

  #answerU64(value: number, size: number): number {
    const { uniqueLow, uniqueHigh } = this.request;
    this.result = value;
    this.#reply.header(uniqueLow, uniqueHigh, 0, size);
    this.#reply.bodyU64(0, value);
    return abi.OUT_HEADER_SIZE + size;
  }
}
