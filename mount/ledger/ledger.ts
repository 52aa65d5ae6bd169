/**
 * The state that must outlive the server: for each file its attributes and failed flushes, for each open handle its
 * file and process.
 *
 * It is a memfd of the keeper that keeper, server and threads map. The server writes to it before it answers, so a new
 * server knows what the old one has acknowledged. The keeper only reads.
 *
 *     0        ┌ file records, 128 bytes each: written by the server's main thread; flush errors and the time of the
 *              │ last write also by its threads
 *     1 MiB    ├ handle records, 32 bytes each: written by the server's main thread
 *     2 MiB    ├ work records, 64 bytes each: the request that a thread works on, its count of answers, its thread
 *              │ id, the file of the request
 *              └
 */
import { ftruncateSync } from 'node:fs';
import { mapShared, memfdCreate } from '../../system/libc.js';
import { isOwnProbe } from '../../system/own-probe.js';

const FILE_BYTES = 128;
const HANDLE_BYTES = 32;
export const MAX_FILES = 8192;
export const MAX_HANDLES = 32768;
const HANDLES_START = MAX_FILES * FILE_BYTES;
const WORK_START = HANDLES_START + MAX_HANDLES * HANDLE_BYTES;
/** one cache line each, so that threads do not slow each other down */
const WORK_BYTES = 64;
/** places for threads first, then places for requests that the main thread works on */
export const WORK_PLACES = 256;
export const MAIN_WORK_START = 64;
export const LEDGER_BYTES = WORK_START + WORK_PLACES * WORK_BYTES;

/** the credit of a file is an int32; threads that subtract at the same time may make it negative for a moment */
const MAX_CREDIT_PAGES = 1 << 30;

/** float64 words of a file record */
const enum F {
  /** 0: no write since the modification time was set */
  lastWriteMs = 0,
  atimeSec = 2,
  mtimeSec = 3,
  ctimeSec = 4,
}
/** int32 words of a file record */
const enum I {
  atimeNsec = 10,
  mtimeNsec = 11,
  ctimeNsec = 12,
  mode = 13,
  uid = 14,
  gid = 15,
  flushErrors = 16,
  flushErrno = 17,
  /** pages of memory that may be written without asking; questions are numbered, and all up to a number are answered */
  credit = 18,
  creditAsked = 19,
  creditAnswered = 20,
  creditPages = 21,
  creditExhausted = 22,
  /** how many writes were done or failed: both change the image's modification time */
  writes = 23,
}

/** float64 words of a handle record */
const enum HF {
  fh = 0,
  nodeId = 1,
}
/** int32 words of a handle record */
const enum HI {
  pid = 4,
  flags = 5,
  seenErrors = 6,
}

/** A request that is being worked on. */
export interface Work {
  readonly unique: number;
  /** the kernel's id of the thread that works on it; 0 for the main thread */
  readonly tid: number;
  /** the file that it is for; 0 if the server is older, and does not tell */
  readonly nodeId: number;
}

/** Makes the memfd of a ledger; the caller owns the descriptor. */
export function createLedger(): number {
  const fd = memfdCreate('fusetap-ledger');
  ftruncateSync(fd, LEDGER_BYTES);
  return fd;
}

/** The attributes of a file. Times are seconds and nanoseconds since the epoch. */
export interface FileAttributes {
  /** type and permissions */
  mode: number;
  uid: number;
  gid: number;
  atimeSec: number;
  atimeNsec: number;
  mtimeSec: number;
  mtimeNsec: number;
  ctimeSec: number;
  ctimeNsec: number;
}

export interface HandleRecord {
  fh: number;
  nodeId: number;
  pid: number;
  flags: number;
}

export class Ledger {
  readonly #f64: Float64Array;
  readonly #i32: Int32Array;

  constructor(fd: number) {
    const memory = mapShared(fd, LEDGER_BYTES);
    this.#f64 = new Float64Array(memory);
    this.#i32 = new Int32Array(memory);
  }

  /** Resets a record for a newly attached file. */
  resetFile(index: number, attributes: { mode: number; uid: number; gid: number }, nowMs: number): void {
    this.#i32.fill(0, index * 32, index * 32 + 32);
    this.setOwner(index, attributes);
    this.setTimes(index, { atimeMs: nowMs, mtimeMs: nowMs }, nowMs);
  }

  setOwner(index: number, owner: { mode?: number; uid?: number; gid?: number }): void {
    const at = index * 32;
    if (owner.mode !== undefined) this.#i32[at + I.mode] = owner.mode;
    if (owner.uid !== undefined) this.#i32[at + I.uid] = owner.uid;
    if (owner.gid !== undefined) this.#i32[at + I.gid] = owner.gid;
  }

  /** Sets access or modification time from milliseconds, and the change time to now. */
  setTimes(index: number, times: { atimeMs?: number; mtimeMs?: number }, nowMs: number): void {
    if (times.atimeMs !== undefined) this.setTime(index, 'atime', ...splitMs(times.atimeMs));
    if (times.mtimeMs !== undefined) this.setTime(index, 'mtime', ...splitMs(times.mtimeMs));
    this.touchChange(index, nowMs);
  }

  setTime(index: number, which: 'atime' | 'mtime', sec: number, nsec: number): void {
    if (which === 'atime') {
      this.#f64[index * 16 + F.atimeSec] = sec;
      this.#i32[index * 32 + I.atimeNsec] = nsec;
    } else {
      this.#f64[index * 16 + F.mtimeSec] = sec;
      this.#i32[index * 32 + I.mtimeNsec] = nsec;
      // reset it: comparing the times would lose writes in the same millisecond
      this.#f64[index * 16 + F.lastWriteMs] = 0;
    }
  }

  touchChange(index: number, nowMs: number): void {
    const [sec, nsec] = splitMs(nowMs);
    this.#f64[index * 16 + F.ctimeSec] = sec;
    this.#i32[index * 32 + I.ctimeNsec] = nsec;
  }

  /** Called by threads for each write: a later write overrides a modification time that was set. */
  noteWrite(index: number, nowMs: number): void {
    this.#f64[index * 16 + F.lastWriteMs] = nowMs;
    Atomics.add(this.#i32, index * 32 + I.writes, 1);
  }

  /** A write failed; it may have changed the image's modification time. Any thread. */
  noteFailedWrite(index: number): void {
    Atomics.add(this.#i32, index * 32 + I.writes, 1);
  }

  /** How many writes were done or failed since attach. */
  writes(index: number): number {
    return Atomics.load(this.#i32, index * 32 + I.writes);
  }

  /** Notes a write that was seen in another way, if it is later than all recorded changes. */
  noteWriteSince(index: number, whenMs: number): void {
    if (whenMs > this.changedMs(index)) this.noteWrite(index, whenMs);
  }

  /** The time of the last recorded change of bytes or attributes, milliseconds since 1970. */
  changedMs(index: number): number {
    const { ctimeSec, ctimeNsec } = this.attributes(index);
    return ctimeSec * 1e3 + ctimeNsec / 1e6;
  }

  attributes(index: number): FileAttributes {
    const f = index * 16;
    const i = index * 32;
    const number = (value: number | undefined): number => value as number;
    const attributes: FileAttributes = {
      mode: number(this.#i32[i + I.mode]),
      uid: number(this.#i32[i + I.uid]) >>> 0,
      gid: number(this.#i32[i + I.gid]) >>> 0,
      atimeSec: number(this.#f64[f + F.atimeSec]),
      atimeNsec: number(this.#i32[i + I.atimeNsec]),
      mtimeSec: number(this.#f64[f + F.mtimeSec]),
      mtimeNsec: number(this.#i32[i + I.mtimeNsec]),
      ctimeSec: number(this.#f64[f + F.ctimeSec]),
      ctimeNsec: number(this.#i32[i + I.ctimeNsec]),
    };
    const lastWriteMs = number(this.#f64[f + F.lastWriteMs]);
    if (lastWriteMs !== 0) {
      [attributes.mtimeSec, attributes.mtimeNsec] = splitMs(lastWriteMs);
      const written = attributes.mtimeSec * 1e3 + attributes.mtimeNsec / 1e6;
      if (written > attributes.ctimeSec * 1e3 + attributes.ctimeNsec / 1e6) {
        attributes.ctimeSec = attributes.mtimeSec;
        attributes.ctimeNsec = attributes.mtimeNsec;
      }
    }
    return attributes;
  }

  /** Counts a failed flush: `errno` positive. Any thread. */
  noteFlushError(index: number, errno: number): void {
    Atomics.store(this.#i32, index * 32 + I.flushErrno, errno);
    Atomics.add(this.#i32, index * 32 + I.flushErrors, 1);
  }

  /** How many flushes have failed since attach, and the errno of the last. */
  flushErrors(index: number): { count: number; errno: number } {
    return {
      count: Atomics.load(this.#i32, index * 32 + I.flushErrors),
      errno: Atomics.load(this.#i32, index * 32 + I.flushErrno),
    };
  }

  /**
   * Takes pages from a file's credit, all or none. Called by any thread for each write to memory: one atomic operation.
   */
  takeCredit(index: number, pages: number): boolean {
    const word = index * 32 + I.credit;
    // more pages than this are never granted
    if (pages > MAX_CREDIT_PAGES) return false;
    if (Atomics.sub(this.#i32, word, pages) >= pages) return true;
    Atomics.add(this.#i32, word, pages);
    return false;
  }

  /** Asks for a credit of `pages` or more. @returns the number of the question */
  askCredit(index: number, pages: number): number {
    Atomics.store(this.#i32, index * 32 + I.creditPages, pages);
    return (Atomics.add(this.#i32, index * 32 + I.creditAsked, 1) + 1) | 0;
  }

  isCreditAnswered(index: number, question: number): boolean {
    return ((Atomics.load(this.#i32, index * 32 + I.creditAnswered) - question) | 0) >= 0;
  }

  /** Whether the last answer was less than what was asked for. */
  isCreditExhausted(index: number): boolean {
    return Atomics.load(this.#i32, index * 32 + I.creditExhausted) !== 0;
  }

  /** For the keeper: the last question without an answer. */
  creditQuestion(index: number): { number: number; pages: number } | null {
    const number = Atomics.load(this.#i32, index * 32 + I.creditAsked);
    if (this.isCreditAnswered(index, number)) return null;
    return { number, pages: Atomics.load(this.#i32, index * 32 + I.creditPages) };
  }

  giveCredit(index: number, pages: number, question: number, isExhausted: boolean): void {
    Atomics.store(this.#i32, index * 32 + I.creditExhausted, isExhausted ? 1 : 0);
    Atomics.add(this.#i32, index * 32 + I.credit, pages);
    Atomics.store(this.#i32, index * 32 + I.creditAnswered, question);
  }

  /** The remaining credit of a file, in pages. */
  credit(index: number): number {
    return Atomics.load(this.#i32, index * 32 + I.credit);
  }

  takeBackCredit(index: number): void {
    const left = this.credit(index);
    // has no effect if the credit is changed at the same moment: then it is in use, or already taken back
    if (left > 0) Atomics.compareExchange(this.#i32, index * 32 + I.credit, left, 0);
  }

  /** Records an open handle in a free place. `seenErrors`: flush errors from before the open are not reported to it. */
  setHandle(place: number, handle: HandleRecord, seenErrors: number): void {
    const i = (HANDLES_START + place * HANDLE_BYTES) / 4;
    this.#i32[i + HI.pid] = handle.pid;
    this.#i32[i + HI.flags] = handle.flags;
    this.#i32[i + HI.seenErrors] = seenErrors;
    const f = (HANDLES_START + place * HANDLE_BYTES) / 8;
    this.#f64[f + HF.nodeId] = handle.nodeId;
    // last, because a record is valid from the moment when its fh is not 0
    this.#f64[f + HF.fh] = handle.fh;
  }

  clearHandle(place: number): void {
    this.#f64[(HANDLES_START + place * HANDLE_BYTES) / 8 + HF.fh] = 0;
  }

  /** Clears all handles: the mount is gone. */
  clearHandles(): void {
    for (let place = 0; place < MAX_HANDLES; place++) this.clearHandle(place);
  }

  /** The errno of a flush error that the handle has not seen yet, or 0. It counts as seen from now on. */
  takeFlushError(place: number, index: number): number {
    const i = (HANDLES_START + place * HANDLE_BYTES) / 4;
    const { count, errno } = this.flushErrors(index);
    if (this.#i32[i + HI.seenErrors] === count) return 0;
    this.#i32[i + HI.seenErrors] = count;
    return errno;
  }

  handleAt(place: number): HandleRecord | null {
    const f = (HANDLES_START + place * HANDLE_BYTES) / 8;
    const fh = this.#f64[f + HF.fh] as number;
    if (fh === 0) return null;
    const i = (HANDLES_START + place * HANDLE_BYTES) / 4;
    return {
      fh,
      nodeId: this.#f64[f + HF.nodeId] as number,
      pid: this.#i32[i + HI.pid] as number,
      flags: this.#i32[i + HI.flags] as number,
    };
  }

  /** A thread starts to work on a request: if the server dies now, this request may be the cause. */
  beginWork(place: number, uniqueId: number, nodeId: number): void {
    const f = (WORK_START + place * WORK_BYTES) / 8;
    this.#f64[f + 3] = nodeId;
    this.#f64[f] = uniqueId;
  }

  /** The place no longer works on its request, which is answered elsewhere or later. */
  leaveWork(place: number): void {
    this.#f64[(WORK_START + place * WORK_BYTES) / 8] = 0;
  }

  /** The request was answered. */
  endWork(place: number): void {
    const f = (WORK_START + place * WORK_BYTES) / 8;
    this.#f64[f] = 0;
    this.#f64[f + 1] = (this.#f64[f + 1] as number) + 1;
  }

  /** How many requests were answered since the ledger was made. */
  answered(): number {
    let sum = 0;
    for (let place = 0; place < WORK_PLACES; place++) {
      sum += this.#f64[(WORK_START + place * WORK_BYTES) / 8 + 1] as number;
    }
    return sum;
  }

  /** Records the thread of a place. @param tid the kernel's thread id; 0 if the place has no thread */
  setThread(place: number, tid: number): void {
    this.#f64[(WORK_START + place * WORK_BYTES) / 8 + 2] = tid;
  }

  /** The requests that are being worked on. */
  work(): Work[] {
    const found: Work[] = [];
    for (let place = 0; place < WORK_PLACES; place++) {
      const f = (WORK_START + place * WORK_BYTES) / 8;
      const unique = this.#f64[f] as number;
      if (unique !== 0) found.push({ unique, tid: this.#f64[f + 2] as number, nodeId: this.#f64[f + 3] as number });
    }
    return found;
  }

  /** Returns the requests that were being worked on and clears their records. Call it when no server runs. */
  takeInFlight(): number[] {
    const found = this.work().map(({ unique }) => unique);
    // each may have been a write to any file: it changed the image's modification time but was not counted
    if (found.length > 0) for (let index = 0; index < MAX_FILES; index++) this.noteFailedWrite(index);
    for (let place = 0; place < WORK_PLACES; place++) this.leaveWork(place);
    return found;
  }

  /** The number of recorded handles of each file, by node id, without those of fusetap's own probes. */
  countHandles(): Map<number, number> {
    const counts = new Map<number, number>();
    for (let place = 0; place < MAX_HANDLES; place++) {
      const f = (HANDLES_START + place * HANDLE_BYTES) / 8;
      if (this.#f64[f + HF.fh] === 0) continue;
      if (isOwnProbe(this.#i32[(HANDLES_START + place * HANDLE_BYTES) / 4 + HI.flags] as number)) continue;
      const nodeId = this.#f64[f + HF.nodeId] as number;
      counts.set(nodeId, (counts.get(nodeId) ?? 0) + 1);
    }
    return counts;
  }
}

function splitMs(ms: number): [sec: number, nsec: number] {
  const sec = Math.floor(ms / 1e3);
  return [sec, Math.round((ms - sec * 1e3) * 1e6)];
}
