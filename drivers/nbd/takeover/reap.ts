/**
 * Waits until the NBD server has done what a server before this one has sent: reads the answers from the old connection.
 * See "Disks on a network" in docs/architecture.md.
 */
import { randomBytes } from 'node:crypto';
import { fstatSync } from 'node:fs';
import { Socket } from 'node:net';
import { addressOf, E, endSending, shareFd, write } from '../../../system/libc.js';
import type { Drain } from '../drain.js';
import { COMMAND, REQUEST_BYTES, writeRequest } from '../protocol.js';
import { monotonicMs } from './doubts.js';
import { type KeptState, SLOT, type Slot } from './kept-state.js';
import { OldAnswers } from './old-answers.js';

/** a request that may be torn gets no answer: how long to wait for one */
const TORN_MS = 1_000;
/** how long to look whether a connection without open requests has ended */
const LOOK_MS = 20;
/** until the socket has room */
const RETRY_MS = 1;

export interface Reaped {
  /** the requests that may still be done */
  readonly doubtful: readonly Slot[];
  /** who had ended the connection before: the NBD server, or one of ours that died then; null: nobody */
  readonly endedBy: 'server' | 'us' | null;
}

export interface ReapWish {
  /** false: it is encrypted, so its answers cannot be read */
  readonly isReadable: boolean;
  /** a flush on another connection says nothing of writes on this one: they are flushed here if that is possible */
  readonly flushes: boolean;
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
  { isReadable, flushes, signal, drain }: ReapWish,
): Promise<Reaped> {
  const answers = new OldAnswers(state, state.slots().filter(mayBeDone));
  if (isReadable) answers.lookBack();
  if (isReadable && flushes && state.isUnflushed && !state.isTorn) sendFlush(socketFd, state, { answers, signal });
  const wasEnded = state.endedSocket === fstatSync(socketFd).ino;
  const hasEnded = await readAnswers(socketFd, state, { answers, isReadable, signal, drain });
  signal.throwIfAborted();
  return { doubtful: answers.unanswered, endedBy: wasEnded ? 'us' : hasEnded ? 'server' : null };
}

/** What is known of an old connection whose socket is not there. */
export function withoutSocket(state: KeptState): Reaped {
  return { doubtful: state.slots().filter(mayBeDone), endedBy: 'server' };
}

/** What the server has not got as a whole is dropped by it when the connection ends. */
function mayBeDone({ state }: Slot): boolean {
  return state === SLOT.handing || state === SLOT.sent;
}

/** Sends a flush behind the requests of the dead server, when the socket has room: it may be full of them. */
function sendFlush(
  socketFd: number,
  state: KeptState,
  { answers, signal }: { readonly answers: OldAnswers; readonly signal: AbortSignal },
): void {
  const cookie = { high: randomBytes(4).readUInt32BE(0), low: randomBytes(4).readUInt32BE(0) };
  const request = Buffer.alloc(REQUEST_BYTES);
  writeRequest(request, 0, { flags: 0, command: COMMAND.flush, cookie, offset: 0, length: 0 });
  answers.expectFlush(cookie.high, cookie.low);
  let sent = 0;
  const sendOn = (): void => {
    if (signal.aborted) return;
    const taken = write(socketFd, addressOf(request.subarray(sent)), REQUEST_BYTES - sent);
    // the connection has ended
    if (taken < 0 && taken !== -E.EAGAIN) return answers.withdrawFlush();
    sent += Math.max(0, taken);
    state.isTorn = sent > 0 && sent < REQUEST_BYTES;
    if (sent < REQUEST_BYTES) setTimeout(sendOn, RETRY_MS);
  };
  sendOn();
}

/** For how long to wait for the answer to a torn request: servers that died meanwhile have waited, too. */
function tornWaitMs(state: KeptState): number {
  const nowMs = monotonicMs();
  if (state.waitsSinceMs === 0) state.waitsSinceMs = nowMs;
  return Math.min(TORN_MS, Math.max(LOOK_MS, state.waitsSinceMs + TORN_MS - nowMs));
}

interface Reading extends Omit<ReapWish, 'flushes'> {
  readonly answers: OldAnswers;
}

/** @returns whether the server has ended the connection */
function readAnswers(
  socketFd: number,
  state: KeptState,
  { answers, isReadable, signal, drain }: Reading,
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
        state.endedSocket = fstatSync(socketFd).ino;
        endSending(socketFd);
        drain.add(destroy);
      }
      resolve(hasEnded);
    };
    const abort = (): void => over(false);
    const look = (): void => {
      if (answers.mustCome && isReadable) return;
      patience ??= setTimeout(() => over(false), isReadable && !answers.areAll ? tornWaitMs(state) : LOOK_MS);
      if (answers.areAll && !isFirst) over(false);
    };
    const callback = (length: number): boolean => {
      if (isReadable && !isOver) answers.received(length);
      // the buffer is that of the next connection
      state.buffer.fill(0, 0, length);
      if (isOver) return true;
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
    answers.onWithdrawn = look;
    signal.addEventListener('abort', abort, { once: true });
    socket.on('end', () => over(true));
    socket.on('error', () => over(true));
    socket.on('close', () => over(true));
    look();
    socket.resume();
  });
}
