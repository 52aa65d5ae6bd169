/**
 * The connections of a disk, one after the other: requests wait while there is none, and are sent again on the next one.
 *
 *      first attach: connect at once, or fail
 *      after a takeover: at the first request reap the old connection, then connect
 *      lost ─► reconnecting: at once, after 0.1, 0.2, 0.5, 1, 2, then every 5 s ─► connected, or broken if the export is
 *              another one. The pauses begin anew only after a connection that has worked for some time.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { endSending, peerPid } from '../../system/libc.js';
import type { ConnectionState, Host, Json } from '../driver.js';
import { FusetapError } from '../errors.js';
import { inputOutputError, reasonOf } from '../remote/faults.js';
import { Connection, type ConnectionEvents } from './connection.js';
import { Drain } from './drain.js';
import { NotKept, OtherExport, systemCode } from './faults.js';
import type { ExportFacts } from './handshake.js';
import type { Operation } from './operation.js';
import { EXPORT_FLAG } from './protocol.js';
import { Backoff } from './retry/backoff.js';
import { Suspects } from './retry/suspects.js';
import { Doubts, monotonicMs, type Repeatable } from './takeover/doubts.js';
import type { KeptState } from './takeover/kept-state.js';
import { reap, withoutSocket } from './takeover/reap.js';
import type { NbdAddress } from './uri.js';
import { Watch } from './watch.js';

/** how long connecting and negotiating may take */
const CONNECT_LIMIT_MS = 10_000;
/** a takeover that takes longer is shown as reconnecting */
const QUIET_MS = 2_000;
/** a server that has requests, and has said nothing for so long, is shown as reconnecting */
const SILENT_MS = 10_000;
/** how often to look at requests: at least once a second, and some times within their timeout */
const LOOK_MS = 1_000;
const LOOKS = 4;

/** no process is known */
const UNKNOWN = 0;

/** What must not change while a disk is attached. */
export type FixedFacts = Pick<ExportFacts, 'size' | 'flags' | 'minimumBytes' | 'maximumBytes'> & {
  readonly hasExtents: boolean;
};

export interface SessionWish {
  readonly address: NbdAddress;
  readonly state: KeptState;
  readonly host: Host | undefined;
  /** requests that wait longer fail with EIO; null: never */
  readonly timeoutMs: number | null;
  /** how long a doubtful range is kept from other writes */
  readonly doubtMs: number;
}

/** The connection of an earlier server. */
export interface Predecessor {
  /** null: there was none yet */
  readonly socketFd: number | null;
  readonly facts: FixedFacts;
  /** false: its memory cannot be read, so nothing is known of what it has sent */
  readonly isKnown: boolean;
}

export class Session {
  readonly #wish: SessionWish;
  readonly #doubts: Doubts;
  readonly #backoff = new Backoff();
  readonly #suspects: Suspects;
  readonly #drain = new Drain();
  readonly #closing = new AbortController();
  readonly #watch: Watch;
  /** of the connection: how much it had received when it was looked at, and since when that has not grown */
  #heard = { bytes: 0, sinceMs: 0 };
  /** it is shown as reconnecting, although it is there */
  #isSilent = false;
  #facts: FixedFacts | null;
  /** the process that listened at the other end of the old connection; 0: unknown */
  #peerPid = UNKNOWN;
  /** until it is reaped */
  #old: Predecessor | null;
  #connection: Connection | null = null;
  #waiting: Operation[] = [];
  /** writes to doubtful ranges */
  readonly #held = new Map<Operation, NodeJS.Timeout>();
  #isConnecting = false;
  #timeout: NodeJS.Timeout | undefined;
  #told: ConnectionState['is'] = 'connected';
  /** why all requests fail; null: they do not */
  #refusal: Error | null = null;
  /** no request waits any more until there is a connection */
  #hasTimedOut = false;
  /** the next flush tells it, because there is no host to tell */
  #loss: Error | null = null;

  constructor(wish: SessionWish, predecessor: Predecessor | null) {
    this.#wish = wish;
    this.#doubts = new Doubts(wish.state.doubts);
    const { timeoutMs } = wish;
    this.#watch = new Watch(timeoutMs === null ? LOOK_MS : Math.min(LOOK_MS, timeoutMs / LOOKS), () => this.#look());
    this.#facts = predecessor?.facts ?? null;
    this.#suspects = new Suspects(() => this.#facts);
    this.#old = predecessor;
  }

  /** Connects for the first time. @throws if that fails */
  async begin(): Promise<FixedFacts> {
    const connection = await this.#connect();
    this.#facts = fixedFacts(connection.facts);
    await this.#install(connection);
    return this.#facts;
  }

  /** Resolves when the operation is done. */
  run(operation: Operation): Promise<void> {
    if (this.#wish.timeoutMs !== null) operation.sinceMs = performance.now();
    // the time in which nothing was asked for is no silence
    if (this.#watch.begin()) this.#heardNow();
    if (this.#refusal !== null) operation.reject(this.#refusal);
    else if (this.#hasTimedOut) operation.reject(this.#lateError());
    else if (this.#waiting.length > 0 || operation.changes) this.#enqueue(operation);
    else if (this.#connection?.hasRoom && !this.#suspects.isTrying) this.#connection.submit(operation);
    else this.#enqueue(operation);
    return operation.settled;
  }

  #enqueue(operation: Operation): void {
    this.#waiting.push(operation);
    if (this.#connection === null) this.#reconnect();
    else this.#pump();
  }

  /** Throws once for each loss of acknowledged writes that no host was told of. */
  tellLoss(): void {
    const loss = this.#loss;
    this.#loss = null;
    if (loss !== null) throw loss;
  }

  #pump(): void {
    while (this.#connection?.hasRoom) {
      const operation = this.#suspects.next(this.#waiting, this.#connection);
      if (operation === undefined) return;
      if (operation.isSettled) continue;
      const waitMs = operation.changes ? this.#doubts.waitMs(operation) : 0;
      if (waitMs > 0) this.#hold(operation, waitMs);
      else this.#connection.submit(operation);
    }
  }

  #hold(operation: Operation, waitMs: number): void {
    this.#suspects.putBack(operation);
    const goOn = (): void => {
      this.#held.delete(operation);
      this.#enqueue(operation);
    };
    this.#held.set(operation, setTimeout(goOn, Math.ceil(waitMs)));
  }

  /** Nothing of an old connection is being done any more. */
  #clearDoubts(): void {
    this.#doubts.clear();
    for (const [operation, timer] of [...this.#held]) {
      clearTimeout(timer);
      this.#held.delete(operation);
      this.#waiting.push(operation);
    }
  }

  // ── connecting ────────────────────────────────────────────────────────────────────────────────────────────────────────

  #reconnect(): void {
    if (this.#isConnecting || this.#closing.signal.aborted || this.#refusal !== null) return;
    this.#isConnecting = true;
    this.#startTimeout();
    const slow = setTimeout(() => this.#tell('the NBD server does not answer'), QUIET_MS);
    this.#connectAtLast()
      .catch((error: unknown) => {
        if (!this.#closing.signal.aborted) this.#breakDown(error as Error);
      })
      .finally(() => {
        clearTimeout(slow);
        this.#isConnecting = false;
        // it may have been lost already
        if (this.#connection === null && this.#waiting.length > 0) this.#reconnect();
      });
  }

  /** @throws OtherExport; when the session is closed */
  async #connectAtLast(): Promise<void> {
    const { signal } = this.#closing;
    await this.#reapOld();
    for (let isFirst = true; ; isFirst = false) {
      const pauseMs = this.#backoff.nextPauseMs();
      if (pauseMs > 0) await delay(pauseMs, undefined, { signal });
      try {
        const connection = await this.#connect();
        checkSame(this.#facts, connection);
        this.#checkPeer(connection);
        return await this.#install(connection);
      } catch (error) {
        if (signal.aborted || error instanceof OtherExport) throw error;
        if (isFirst && this.#hasServerEnded(error)) this.#clearDoubts();
        // it may be another one that answers at last, and no later attempt would tell
        if (!(error instanceof NotKept)) this.#noteLoss(`the NBD server cannot be reached: ${reasonOf(error)}`);
        this.#tell(reasonOf(error));
      }
    }
  }

  /** Another process than at the last connection may not have what that one had. */
  #checkPeer({ fd }: Connection): void {
    const pid = fd === null ? UNKNOWN : listenerOf(fd);
    if (this.#peerPid !== UNKNOWN && pid !== this.#peerPid) this.#noteLoss('another process is the NBD server now');
    this.#peerPid = UNKNOWN;
  }

  async #connect(): Promise<Connection> {
    const limit = new AbortController();
    const late = new FusetapError('BUSY', `the NBD server did not answer within ${CONNECT_LIMIT_MS / 1000} s`, {
      hint: 'it may hang, or accept only one client at a time, as qemu-nbd does without -e',
    });
    const timer = setTimeout(() => limit.abort(late), CONNECT_LIMIT_MS);
    const events: ConnectionEvents = {
      hasRoom: () => {
        if (this.#isSilent) this.#tellConnected();
        this.#pump();
      },
      lost: (reason, inFlight) => this.#lost(reason, inFlight),
    };
    try {
      const signal = AbortSignal.any([limit.signal, this.#closing.signal]);
      return await Connection.open(this.#wish.address, this.#wish.state, { events, signal, drain: this.#drain });
    } finally {
      clearTimeout(timer);
    }
  }

  /** Uses a connection. The keeper has its socket before the first write is sent. */
  async #install(connection: Connection): Promise<void> {
    const { host, state } = this.#wish;
    const { fd } = connection;
    try {
      if (fd !== null && this.#facts !== null) await host?.keep(factsToKeep(this.#facts, connection), [state.fd, fd]);
    } catch (error) {
      connection.close();
      throw new NotKept(`the bus cannot keep the connection: ${reasonOf(error)}`, { cause: error });
    }
    if (this.#closing.signal.aborted) return connection.close();
    // it may have ended meanwhile
    if (connection.fd === null || !connection.hasRoom) throw new Error('the NBD server closed the connection');
    this.#connection = connection;
    this.#backoff.connected(performance.now());
    this.#hasTimedOut = false;
    clearTimeout(this.#timeout);
    this.#timeout = undefined;
    this.#heardNow();
    this.#tellConnected();
    this.#pump();
  }

  /** Waits for what an earlier server has sent. */
  async #reapOld(): Promise<void> {
    const { state, address } = this.#wish;
    if (this.#old === null) return;
    const { socketFd, facts, isKnown } = this.#old;
    if (!isKnown) {
      if (socketFd !== null) endSending(socketFd);
      this.#old = null;
      const whole = { offset: 0, length: facts.size };
      this.#doubt([{ ...whole, asked: whole }], false);
      // it may have had some
      state.noteWrite();
      return this.#noteLoss('what an earlier server has kept cannot be read');
    }
    const { signal } = this.#closing;
    const flushes = (facts.flags & EXPORT_FLAG.multiConn) === 0;
    const reapWish = { isReadable: address.tls === null, flushes, signal, drain: this.#drain };
    const reaped = socketFd === null ? withoutSocket(state) : await reap(socketFd, state, reapWish);
    this.#old = null;
    this.#doubts.load();
    this.#doubt(reaped.doubtful);
    state.clear();
    this.#peerPid = socketFd === null ? UNKNOWN : listenerOf(socketFd);
    const isUnknown = reaped.endedBy === 'us' && this.#peerPid === UNKNOWN;
    if (reaped.endedBy === 'server' || isUnknown) this.#noteLoss('the NBD server ended the connection');
    else if (flushes) this.#noteLoss('the old connection could not be flushed, and no other one can do it');
  }

  #doubt(ranges: readonly Repeatable[], mayRepeat = true): void {
    const untilMs = monotonicMs() + this.#wish.doubtMs;
    for (const range of ranges) this.#doubts.add(range, untilMs, mayRepeat);
  }

  // ── waiting ───────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** @returns whether there are requests to look after */
  #look(): boolean {
    const nowMs = performance.now();
    this.#lookForSilence(nowMs);
    const { timeoutMs } = this.#wish;
    if (timeoutMs !== null) this.#endOlder(nowMs - timeoutMs);
    if (this.#suspects.isTrying) this.#pump();
    return this.#waiting.length > 0 || this.#held.size > 0 || (this.#connection !== null && !this.#connection.isIdle);
  }

  /** A server may hang, and its connection stay. */
  #lookForSilence(nowMs: number): void {
    const connection = this.#connection;
    if (connection === null) return;
    const { receivedBytes, isIdle } = connection;
    if (isIdle || receivedBytes !== this.#heard.bytes) this.#heardNow();
    else if (nowMs - this.#heard.sinceMs >= SILENT_MS) {
      this.#isSilent = true;
      this.#tell(`the NBD server has not answered for ${SILENT_MS / 1000} s`);
    }
  }

  #heardNow(): void {
    this.#heard = { bytes: this.#connection?.receivedBytes ?? 0, sinceMs: performance.now() };
  }

  /** Fails the requests that were asked for before that time. A connection that has one of them is given up. */
  #endOlder(thanMs: number): void {
    const error = inputOutputError(`the NBD server has not answered for ${(this.#wish.timeoutMs ?? 0) / 1000} s`);
    // what it has in flight is in doubt then, and waits for the next connection with the others
    if (this.#connection?.hasOlder(thanMs)) this.#connection.break(error);
    const isOlder = ({ sinceMs }: Operation): boolean => sinceMs < thanMs;
    const older = this.#waiting.filter(isOlder);
    if (older.length > 0) this.#waiting = this.#waiting.filter((operation) => !isOlder(operation));
    for (const [operation, timer] of this.#held) {
      if (!isOlder(operation)) continue;
      clearTimeout(timer);
      this.#held.delete(operation);
      older.push(operation);
    }
    for (const operation of older) this.#fail(operation, error);
  }

  /** Fails a request that waits. An old connection may still do it. */
  #fail(operation: Operation, error: Error): void {
    if (operation.changes && operation.isRepeated) this.#doubts.forbid(operation);
    operation.reject(error);
  }

  // ── losing ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  #lost(reason: Error, inFlight: readonly Operation[]): void {
    const { state } = this.#wish;
    const connection = this.#connection;
    this.#backoff.lost(performance.now(), connection?.answered ?? 0);
    const deadly = this.#suspects.lost(inFlight, connection, !(reason instanceof FusetapError));
    this.#connection = null;
    this.#isSilent = false;
    // first the doubts, then the slots: this process may die
    this.#doubt(inFlight.filter(({ changes }) => changes));
    state.clear();
    for (const operation of inFlight) operation.reset();
    this.#waiting.unshift(
      ...inFlight.filter((operation) => operation !== deadly && !this.#suspects.isProbe(operation)),
    );
    if (deadly !== null) this.#fail(deadly, inputOutputError('the NBD server ends each connection at this request'));
    this.#noteLoss(reasonOf(reason));
    this.#tell(reasonOf(reason));
    this.#reconnect();
  }

  /**
   * Whether an error of the first attempt proves that the server has ended, and all that it was doing: a unix socket is
   * there, and nobody listens. A killed server closes it when none of its threads works any more. A missing socket proves
   * nothing, as a name is soon removed; nor does a port that refuses: it may be another machine, or a firewall.
   */
  #hasServerEnded(error: unknown): boolean {
    return this.#wish.address.socket !== null && systemCode(error) === 'ECONNREFUSED';
  }

  /** Acknowledged writes that are not flushed may be lost, and no later flush would tell. */
  #noteLoss(reason: string): void {
    const { state, host } = this.#wish;
    if (!state.isUnflushed) return;
    const error = inputOutputError(`acknowledged writes may be lost: ${reason}`);
    if (host === undefined) this.#loss = error;
    else host.lost(error);
    // only when it is told: this process may die
    state.noteDurable(state.acknowledged);
  }

  #tellConnected(): void {
    this.#isSilent = false;
    if (this.#told !== 'connected') this.#wish.host?.told({ is: 'connected' });
    this.#told = 'connected';
  }

  #tell(reason: string): void {
    if (this.#told === 'reconnecting' || this.#refusal !== null || this.#closing.signal.aborted) return;
    this.#told = 'reconnecting';
    this.#wish.host?.told({ is: 'reconnecting', reason });
  }

  #startTimeout(): void {
    const { timeoutMs } = this.#wish;
    if (timeoutMs === null || this.#timeout !== undefined) return;
    this.#timeout = setTimeout(() => {
      this.#hasTimedOut = true;
      this.#rejectWaiting(this.#lateError());
    }, timeoutMs);
  }

  #lateError(): FusetapError {
    return inputOutputError(`the NBD server has not been there for ${(this.#wish.timeoutMs ?? 0) / 1000} s`);
  }

  #breakDown(error: Error): void {
    this.#refusal = inputOutputError(reasonOf(error));
    this.#wish.host?.told({ is: 'broken', reason: reasonOf(error) });
    this.#noteLoss(reasonOf(error));
    this.#rejectWaiting(this.#refusal);
  }

  #rejectWaiting(error: Error): void {
    for (const [operation, timer] of this.#held) {
      clearTimeout(timer);
      operation.reject(error);
    }
    this.#held.clear();
    for (const operation of this.#waiting.splice(0)) this.#fail(operation, error);
  }

  /** Fails all requests, now and later: the disk is going away, although the server does not answer. */
  giveUp(): void {
    this.#refusal ??= inputOutputError('the disk was given up while the NBD server did not answer');
    this.#closing.abort(this.#refusal);
    this.#connection?.break(this.#refusal);
    this.#rejectWaiting(this.#refusal);
  }

  close(): void {
    clearTimeout(this.#timeout);
    this.#watch.end();
    this.#closing.abort(new Error('the disk is closed'));
    this.#connection?.close();
    this.#connection = null;
  }
}

/** The process that listens at the other end. systemd listens for servers that come and go. */
function listenerOf(socketFd: number): number {
  const pid = peerPid(socketFd);
  return pid === 1 ? UNKNOWN : pid;
}

function fixedFacts({ size, flags, minimumBytes, maximumBytes, contextId }: ExportFacts): FixedFacts {
  return { size, flags, minimumBytes, maximumBytes, hasExtents: contextId !== null };
}

/** What the next server has to know: of the disk, and how to end this connection. */
function factsToKeep(facts: FixedFacts, { facts: { flags } }: Connection): FixedFacts & Json {
  const { multiConn } = EXPORT_FLAG;
  return { ...facts, flags: (facts.flags & ~multiConn) | (flags & multiConn) };
}

/** What an export must still be able to do. */
const NEEDED = EXPORT_FLAG.flush | EXPORT_FLAG.fua | EXPORT_FLAG.writeZeroes;

/** @throws OtherExport, and ends the connection */
function checkSame(was: FixedFacts | null, connection: Connection): void {
  const is = fixedFacts(connection.facts);
  const why = was === null ? null : difference(was, is);
  if (why === null) return;
  connection.close();
  throw new OtherExport(`the export is another one: ${why}`);
}

function difference(was: FixedFacts, is: FixedFacts): string | null {
  if (was.size !== is.size) return `it had ${was.size} bytes at attach, and has ${is.size} now`;
  if ((was.flags & EXPORT_FLAG.readOnly) !== (is.flags & EXPORT_FLAG.readOnly)) {
    return is.flags & EXPORT_FLAG.readOnly ? 'it is read-only now' : 'it was read-only, and can be written now';
  }
  if ((was.flags & NEEDED & ~is.flags) !== 0) return 'it can do less now (flush, FUA, zeroes)';
  if (is.minimumBytes > was.minimumBytes)
    return `its blocks have ${is.minimumBytes} bytes now, not ${was.minimumBytes}`;
  return is.maximumBytes < was.maximumBytes ? `it takes at most ${is.maximumBytes} bytes at once now` : null;
}
