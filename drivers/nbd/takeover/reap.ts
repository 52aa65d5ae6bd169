/**
 * Waits until the NBD server has done what a server before this one has sent: reads the answers from the old connection.
 * See "Disks on a network" in docs/architecture.md.
 */
import { Socket } from 'node:net';
import { endSending, shareFd } from '../../../system/libc.js';
import type { Drain } from '../drain.js';
import { CHUNK_DONE, CHUNK_MAGIC, REPLY_COOKIE_AT, SIMPLE_REPLY_MAGIC } from '../protocol.js';
import { BUFFER_BYTES, type KeptState, SLOT, type Slot, TAIL_BYTES } from './kept-state.js';

/** a request that may be torn gets no answer: how long to wait for one */
const TORN_MS = 1_000;
/** how long to look whether a connection without open requests has ended */
const LOOK_MS = 20;
/** a cookie that is cut by the end of a read is recognized by so many bytes */
const CUT_COOKIE_BYTES = 4;

export interface Reaped {
  /** the requests that may still be done */
  readonly doubtful: readonly Slot[];
  /** the server had ended the connection before */
  readonly hasEnded: boolean;
}

export interface ReapWish {
  /** false: it is encrypted, so its answers cannot be read */
  readonly isReadable: boolean;
  readonly signal: AbortSignal;
  readonly drain: Drain;
}

/**
 * Reads the old answers, then ends the old connection. The slots stay as they are.
 * @param socketFd of the old connection; stays open
 */
export async function reap(
  socketFd: number,
  state: KeptState,
  { isReadable, signal, drain }: ReapWish,
): Promise<Reaped> {
  const unanswered = new Map(state.slots().flatMap((slot) => (mayBeDone(slot) ? [[slot.index, slot]] : [])));
  if (isReadable) settle(state, unanswered, 0, TAIL_BYTES + BUFFER_BYTES);
  const hasEnded = await readAnswers(socketFd, state, { unanswered, isReadable, signal, drain });
  signal.throwIfAborted();
  return { doubtful: [...unanswered.values()], hasEnded };
}

/** What is known of an old connection whose socket is not there. */
export function withoutSocket(state: KeptState): Reaped {
  return { doubtful: state.slots().filter(mayBeDone), hasEnded: true };
}

/** What the server has not got as a whole is dropped by it when the connection ends. */
function mayBeDone({ state }: Slot): boolean {
  return state === SLOT.handing || state === SLOT.sent;
}

interface Reading extends ReapWish {
  readonly unanswered: Map<number, Slot>;
}

/** @returns whether the server has ended the connection */
function readAnswers(
  socketFd: number,
  state: KeptState,
  { unanswered, isReadable, signal, drain }: Reading,
): Promise<boolean> {
  return new Promise((resolve) => {
    let isFirst = true;
    let patience: NodeJS.Timeout | undefined;
    let isOver = false;
    const destroy = (): void => void socket.destroy();
    const over = (hasEnded: boolean): void => {
      if (hasEnded) {
        drain.remove(destroy);
        destroy();
      }
      if (isOver) return;
      isOver = true;
      clearTimeout(patience);
      signal.removeEventListener('abort', abort);
      // what comes until the server closes its side is read and thrown away: see Wire.close
      if (!hasEnded) {
        endSending(socketFd);
        drain.add(destroy);
      }
      resolve(hasEnded);
    };
    const abort = (): void => over(false);
    const look = (): void => {
      const isOpen = [...unanswered.values()].some((slot) => slot.state === SLOT.sent);
      if (isOpen && isReadable) return;
      patience ??= setTimeout(() => over(false), isReadable && unanswered.size > 0 ? TORN_MS : LOOK_MS);
      if (unanswered.size === 0 && !isFirst) over(false);
    };
    const callback = (length: number): boolean => {
      if (isOver) return true;
      if (isReadable) {
        if (isFirst) settleCut(state, unanswered);
        settle(state, unanswered, 0, TAIL_BYTES + length);
        state.keepTail(length);
      }
      isFirst = false;
      look();
      return true;
    };
    const socket = new Socket({
      fd: shareFd(socketFd),
      readable: true,
      writable: false,
      onread: { buffer: state.buffer, callback },
    } as ConstructorParameters<typeof Socket>[0]);
    signal.addEventListener('abort', abort, { once: true });
    socket.on('end', () => over(true));
    socket.on('error', () => over(true));
    socket.on('close', () => over(true));
    look();
    socket.resume();
  });
}

/** Finds answers in what was received: by their cookies, wherever they are. */
function settle(state: KeptState, unanswered: Map<number, Slot>, from: number, to: number): void {
  const bytes = state.received.subarray(from, to);
  for (const [index, slot] of unanswered) {
    const cookie = cookieOf(slot);
    for (let at = bytes.indexOf(cookie); at >= 0; at = bytes.indexOf(cookie, at + 1)) {
      if (!isReply(bytes, at - REPLY_COOKIE_AT)) continue;
      unanswered.delete(index);
      state.set(index, SLOT.free);
      break;
    }
  }
}

function cookieOf({ high, low }: Slot): Buffer {
  const cookie = Buffer.alloc(8);
  cookie.writeUInt32BE(high, 0);
  cookie.writeUInt32BE(low, 4);
  return cookie;
}

/** Whether the last part of a reply begins there. */
function isReply(bytes: Buffer, at: number): boolean {
  if (at < 0) return false;
  const magic = bytes.readUInt32BE(at);
  if (magic === SIMPLE_REPLY_MAGIC) return true;
  return magic === CHUNK_MAGIC && (bytes.readUInt16BE(at + 4) & CHUNK_DONE) !== 0;
}

/**
 * Finds a header that was cut: the server died after it had read the first part into the buffer, where the end of that
 * is not known, and before it had looked at it.
 */
function settleCut(state: KeptState, unanswered: Map<number, Slot>): void {
  const first = state.received.subarray(TAIL_BYTES, TAIL_BYTES + 8);
  for (const [index, slot] of unanswered) {
    const cookie = cookieOf(slot);
    for (let cut = 0; cut <= cookie.length - CUT_COOKIE_BYTES; cut++) {
      if (first.compare(cookie, cut, cookie.length, 0, cookie.length - cut) !== 0) continue;
      unanswered.delete(index);
      state.set(index, SLOT.free);
      break;
    }
  }
}
