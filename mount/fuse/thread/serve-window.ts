/**
 * Requests that a thread serves itself, because their place in a file is known: a few system calls each.
 *
 *      offset   0                4016        4080      4096                    4096 + 512 KiB
 *               ├────────────────┼───────────┼─────────┼──────── data ─────────┤
 *      request                   └ in_header + write_in ┘└ bytes to write        read(2) puts it here
 *      reply                                 └ out_header┘└ bytes read           one write(2) sends it
 *
 * Each thread has one resident buffer at a time (request-memory.ts). Data starts at a page boundary in both directions, and
 * is never moved. All fields of a request are read before the reply's header overwrites its last 16 bytes.
 */
import type { Window } from '../../../drivers/driver.js';
import { ASK, WRITABLE, ZEROS } from '../../../drivers/map/table.js';
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
} from '../../../drivers/segments/window-sync.js';
import { E, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } from '../../../system/libc.js';
import { PAGE_BYTES } from '../../../system/page.js';
import { allocateResident } from '../../../system/resident.js';
import { DISCARD, FLUSH, NOT_COUNTED, READ, WRITE } from '../../ledger/counters.js';
import type { Ledger } from '../../ledger/ledger.js';
import { pagesOf, RamGrowth } from '../../ram/growth.js';
import { mayHaveTakenError, writesDurably } from '../../transport/file-rules.js';
import * as abi from '../protocol/abi.js';
import { Reply, type Request } from '../protocol/message.js';
import { MAPPED_BYTES, writeMapped } from './mapped-write.js';
import { createRequestMemory, type Place, REQUEST_START, RequestPlaces } from './request-memory.js';
import { IN_ONE, IN_RUNS, type Places, type ServedWindow } from './served-disk.js';
import { SPLICE_BYTES, type SpliceReply } from './splice-reply.js';
import type { ThreadGate } from './thread-control.js';
import { NO_TURNS, type WriteTurns } from './write-turns.js';

const REPLY_START = PAGE_BYTES - abi.OUT_HEADER_SIZE;

/** Optional abilities of a thread. */
export interface WindowServerOptions {
  /** makes the keeper look at the ledger, where this thread asks for memory for a file; default: no limit */
  askMemory?: (nodeId: number) => void;
  /** called at the first write to mapped memory in a while */
  tellMapped?: () => void;
  /** sends large replies itself; default: all replies are copied */
  splice?: SpliceReply;
  /** the turns of the threads; default: there is one thread, and it does not copy to mapped memory */
  turns?: WriteTurns;
  /** where requests are read to, and which place is the first; default: memory of its own */
  places?: { readonly all: RequestPlaces; readonly first: number };
}

/** A read that is not answered yet. */
export interface DeferredRead {
  readonly uniqueLow: number;
  readonly uniqueHigh: number;
  /** the window with all of its bytes, and their place there */
  readonly served: ServedWindow;
  readonly offset: number;
  readonly size: number;
}

/** The result of `serve` if the main thread must serve the request. */
export const NOT_SERVED = -1;
/** The result of `serve` if the reply was sent already. */
export const SENT = -2;
/** The result of `serve` for a read whose bytes the disk is still loading: `finishRead` must answer it. */
export const DEFERRED = -3;

/** results of a write beside its bytes and −errno: the main thread must write it; the ram limit is reached */
const NOT_HERE = -4096;
const NO_MEMORY = -4097;

/** larger reads are rare, and a thread may wait for them */
const DEFERRED_BYTES = 64 << 10;

/** A write to one run. */
interface RunWrite {
  readonly served: ServedWindow;
  /** the window of `served` to write through: plain or durable */
  readonly window: Window;
  /** the first byte of the request to write */
  readonly from: number;
  /** in the window */
  readonly offset: number;
  readonly size: number;
}

export class WindowServer {
  readonly #places: RequestPlaces;
  #place: Place;
  readonly #punching: Zeroing;
  readonly #zeroing: Zeroing;
  readonly #ledger: Ledger;
  readonly #gate: ThreadGate;
  readonly #growth: RamGrowth | null;
  #reply: Reply;
  /** of the request that was served last: its kind in the counters, and its bytes or −errno */
  kind: number = NOT_COUNTED;
  result = 0;
  /** whether reads that lack bytes may be DEFERRED */
  mayDefer = false;
  /** whether the splice may send the reply: it knows only the thread's own device */
  maySplice = true;

  readonly #splice: SpliceReply | null;
  readonly #tellMapped: (() => void) | null;
  readonly #turns: WriteTurns | null;

  constructor(ledger: Ledger, gate: ThreadGate, options: WindowServerOptions = {}) {
    const { askMemory, tellMapped, splice, turns, places } = options;
    this.#ledger = ledger;
    this.#gate = gate;
    this.#splice = splice ?? null;
    this.#tellMapped = tellMapped ?? null;
    this.#turns = turns ?? null;
    const ask = askMemory && (() => askMemory(this.request.nodeId));
    this.#growth = ask ? new RamGrowth({ ledger, ask, beforeWaiting: () => gate.givePermit() }) : null;
    this.#places = places?.all ?? new RequestPlaces(createRequestMemory());
    this.#place = this.#places.first(places?.first ?? 0);
    this.#reply = replyIn(this.#place);
    // never written: the source of zeros
    const zeros = allocateResident(16 * PAGE_BYTES);
    this.#punching = { punch: true, zeros };
    this.#zeroing = { punch: false, zeros };
  }

  /** where read(2) puts a request */
  get requestAddress(): number {
    return this.#place.address + REQUEST_START;
  }

  get requestLimit(): number {
    return this.#place.bytes.length - REQUEST_START;
  }

  get request(): Request {
    return this.#place.request;
  }

  get replyAddress(): number {
    return this.#place.address + REPLY_START;
  }

  get #dataAddress(): number {
    return this.#place.address + PAGE_BYTES;
  }

  /** Gives the request away with its memory, and goes on with other memory. @returns its place; null if there is no other */
  passOn(): number | null {
    const next = this.#places.takeAnother();
    if (next === null) return null;
    const { number } = this.#place;
    this.#place = next;
    this.#reply = replyIn(next);
    return number;
  }

  /** @returns the length of the reply to send, or NOT_SERVED, SENT or DEFERRED; then `disk` has the place of the read */
  serve(disk: Places): number {
    this.kind = NOT_COUNTED;
    switch (this.request.opcode) {
      case abi.READ:
        this.kind = READ;
        return this.#read(disk);
      case abi.WRITE:
        this.kind = WRITE;
        return this.#write(disk);
      case abi.FSYNC:
        this.kind = FLUSH;
        return this.#fsync(disk);
      case abi.FALLOCATE:
        return this.#fallocate(disk);
      case abi.LSEEK:
        return this.#lseek(disk);
      default:
        return NOT_SERVED;
    }
  }

  /** Makes a reply without a body, for any request. `error` is 0 or −errno. */
  answer(error: number): number {
    const { uniqueLow, uniqueHigh } = this.request;
    this.result = error;
    this.#reply.header(uniqueLow, uniqueHigh, error, 0);
    return abi.OUT_HEADER_SIZE;
  }

  #read(disk: Places): number {
    const { request } = this;
    const offset = request.bodyU64(abi.RW_OFFSET);
    const size = Math.min(request.bodyU32(abi.RW_SIZE), abi.MAX_WRITE);
    switch (disk.find(offset, size, false)) {
      case IN_ONE:
        return this.#readWindow(disk.window, disk.at, disk.length);
      case IN_RUNS:
        return this.#readRuns(disk, offset, disk.length);
      default:
        return NOT_SERVED;
    }
  }

  #readWindow({ window, canReadNoWait }: ServedWindow, offset: number, size: number): number {
    const { uniqueLow, uniqueHigh } = this.request;
    const wanted = Math.min(size, window.size - offset);
    // if a page may have to come from a disk, RWF_NOWAIT is tried first, below
    if (wanted >= SPLICE_BYTES && (window.kind === 'memory' || !canReadNoWait)) {
      this.#reply.header(uniqueLow, uniqueHigh, 0, wanted);
      if (this.maySplice && this.#splice?.send(window, this.replyAddress, offset, wanted)) {
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

  /** Reads a range of a map: runs of files, and zeros. */
  #readRuns(disk: Places, offset: number, size: number): number {
    const { uniqueLow, uniqueHigh } = this.request;
    for (let done = 0; done < size; done += disk.length) {
      const state = disk.nextRun(offset + done, size - done);
      if (state === ASK) return NOT_SERVED;
      if (state === ZEROS) {
        this.#place.bytes.fill(0, PAGE_BYTES + done, PAGE_BYTES + done + disk.length);
        continue;
      }
      const n = this.#readRun(disk.window, this.#dataAddress + done, disk.at, disk.length);
      if (n < 0) return this.#answerRead(uniqueLow, uniqueHigh, n);
    }
    return this.#answerRead(uniqueLow, uniqueHigh, size);
  }

  /** @returns the bytes read: all of them, or −errno */
  #readRun({ window, canReadNoWait }: ServedWindow, address: number, offset: number, size: number): number {
    if (canReadNoWait) {
      const n = readWindowNoWait(window, address, offset, size);
      if (n !== -E.EAGAIN) return n;
      this.#gate.givePermit();
    }
    return readWindow(window, address, offset, size);
  }

  /**
   * Answers a read that was DEFERRED.
   * @param mayWait false: only if all bytes are in memory by now
   * @returns the length of the reply to send, or NOT_SERVED
   */
  finishRead(read: DeferredRead, mayWait: boolean): number {
    const { offset, size } = read;
    const { window } = read.served;
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

  #write(disk: Places): number {
    const { request } = this;
    const { ledgerIndex } = disk;
    const isDurable = writesDurably(request.bodyU32(abi.RW_FLAGS));
    if (isDurable && disk.isMap) return NOT_SERVED;
    const offset = request.bodyU64(abi.RW_OFFSET);
    const finding = disk.find(offset, request.bodyU32(abi.RW_SIZE), true);
    if (finding !== IN_ONE && finding !== IN_RUNS) return NOT_SERVED;
    const { length } = disk;
    const n = finding === IN_ONE ? this.#writeRun(disk, 0, isDurable) : this.#writeRuns(disk, offset, length);
    if (n === NOT_HERE) return NOT_SERVED;
    if (n < 0) {
      if (n !== NO_MEMORY) this.#ledger.noteFailedWrite(ledgerIndex);
      const isTaken = isDurable && mayHaveTakenError(-n, disk.at, disk.window.window.size);
      if (isTaken) this.#ledger.noteFlushError(disk.flushIndex, -n);
      return this.answer(n === NO_MEMORY ? -E.ENOSPC : n);
    }
    this.#ledger.noteWrite(ledgerIndex, Date.now());
    return this.#answerU64(n, abi.WRITE_OUT_SIZE);
  }

  /** Writes to several runs. @returns as writeRun, or NOT_HERE: then the main thread writes all of it, again */
  #writeRuns(disk: Places, offset: number, size: number): number {
    for (let done = 0; done < size; done += disk.length) {
      if (disk.nextRun(offset + done, size - done) !== WRITABLE) return NOT_HERE;
    }
    for (let done = 0; done < size; ) {
      // the map may have changed
      if (disk.nextRun(offset + done, size - done) !== WRITABLE) return NOT_HERE;
      const { length } = disk;
      const n = this.#writeRun(disk, done, false);
      if (n < 0) return n;
      // the end of the file
      if (n < length) return done + n;
      done += n;
    }
    return size;
  }

  /**
   * Writes to the run that was found last.
   * @param from the first byte of the request to write
   * @returns the bytes written, −errno if nothing was written, or NO_MEMORY
   */
  #writeRun({ window: served, at, length, ledgerIndex }: Places, from: number, isDurable: boolean): number {
    const window = isDurable ? served.durably : served.window;
    if (window.durable) this.#gate.givePermit();
    if (served.mayGrow && !this.#mayFill(window, ledgerIndex, at, length)) return NO_MEMORY;
    return this.#writeInTurn({ served, window, from, offset: at, size: length });
  }

  /** @returns the bytes written, or −errno if nothing was written */
  #writeInTurn({ served, window, from, offset, size }: RunWrite): number {
    const address = this.#dataAddress + from;
    const hasTurn = this.#beginTurn(served, offset, size);
    try {
      const begun = hasTurn ? this.#writeMapped(served, address, offset, size) : 0;
      if (begun > 0 && begun === size) return begun;
      const rest = writeWindow(window, address + begun, offset + begun, size - begun);
      return rest < 0 ? rest : begun + rest;
    } finally {
      if (hasTurn) this.#turns?.end();
    }
  }

  /** Waits for writes that overlap. @returns whether a turn was taken, which the caller must end */
  #beginTurn({ window, turns }: ServedWindow, offset: number, length: number): boolean {
    if (turns === NO_TURNS || this.#turns === null || window.readOnly) return false;
    const inside = Math.min(length, window.size - offset);
    if (inside <= 0) return false;
    while (!this.#turns.tryBegin(turns, window.start + offset, inside)) this.#gate.givePermit();
    return true;
  }

  /** @returns bytes written from the start of the range; 0: use pwrite instead */
  #writeMapped(served: ServedWindow, address: number, offset: number, size: number): number {
    if (served.mappedAt === 0 || size < MAPPED_BYTES) return 0;
    if (this.#gate.noteMapped()) this.#tellMapped?.();
    if (this.#turns?.mayCopy(served.turns) !== true) return 0;
    return writeMapped(served, address, offset, size);
  }

  #fsync({ all, flushIndex }: Places): number {
    // only the main thread knows which handles got an error already
    if (all === null || this.#ledger.flushErrors(flushIndex).count > 0) return NOT_SERVED;
    this.#gate.givePermit();
    for (const { window } of all) {
      const error = flushWindow(window);
      if (error < 0) this.#ledger.noteFlushError(flushIndex, -error);
    }
    return this.#ledger.flushErrors(flushIndex).count > 0 ? NOT_SERVED : this.answer(0);
  }

  #fallocate(disk: Places): number {
    const { request } = this;
    const { ledgerIndex } = disk;
    // the range may be the whole disk: do not look at each of its granules
    if (disk.isMap) return NOT_SERVED;
    const finding = disk.find(request.bodyU64(abi.FALLOCATE_OFFSET), request.bodyU64(abi.FALLOCATE_LENGTH), true);
    if (finding !== IN_ONE) return NOT_SERVED;
    const { window: served, at: offset, length } = disk;
    const { window } = served;
    if (window.kind !== 'memory') this.#gate.givePermit();
    let result: number;
    switch (request.bodyU32(abi.FALLOCATE_MODE)) {
      case 0:
      case FALLOC_FL_KEEP_SIZE:
        if (served.mayGrow && offset + length <= window.size) {
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

  /** Only a disk that is one window: in others a run of data may go on in the next one. */
  #lseek({ all }: Places): number {
    const [only, second] = all ?? [];
    if (only === undefined || second !== undefined) return NOT_SERVED;
    const { request } = this;
    const position = seekWindow(only.window, request.bodyU64(abi.LSEEK_OFFSET), request.bodyU32(abi.LSEEK_WHENCE));
    if (position < 0) return this.answer(position);
    return this.#answerU64(position, abi.LSEEK_OUT_SIZE);
  }

  /** Whether the holes in a range may be filled with memory. */
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

const replyIn = ({ bytes }: Place): Reply => new Reply(bytes.subarray(REPLY_START));
