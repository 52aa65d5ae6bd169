/**
 * A worker thread: reads requests from its own clone of /dev/fuse and serves those whose place in a file is known. It hands all others to
 * the main thread, which replies on the same descriptor. The loop runs as long as the bus exists.
 *
 *      wait for a permit ──► read ──► serve ──► reply
 *                                       ├─► not for a thread ──► hand on to the main thread
 *                                       └─► a read that lacks bytes ──► put off ──► settle (deferred-reads.ts)
 *
 * A request that is served here allocates nothing, and its fields are read from the buffer directly.
 */
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { E, errnoName, gettid, read, setNonBlocking, write } from '../../../system/libc.js';
import { areaOfThread, CounterPages, type Counters, countRequest, NOT_COUNTED, now } from '../../ledger/counters.js';
import { Ledger } from '../../ledger/ledger.js';
import * as abi from '../protocol/abi.js';
import { isIo, isOneWay, isWellFormed } from '../protocol/message.js';
import { crashPoint } from './crash-point.js';
import { DeferredReads, type PutOff } from './deferred-reads.js';
import { LARGE_REQUEST_BYTES, type RequestMemory, RequestPlaces } from './request-memory.js';
import { DEFERRED, NOT_SERVED, SENT, WindowServer } from './serve-window.js';
import { type Places, placesOf, type ServedDisk } from './served-disk.js';
import { SpliceReply } from './splice-reply.js';
import { ThreadGate, type ThreadMemory } from './thread-control.js';
import { type TurnMemory, WriteTurns } from './write-turns.js';

/** threads copy the bytes of larger writes side by side, which the event loop cannot */
const MOST_LENDING_BYTES = 128 << 10;

export interface ThreadData {
  readonly thread: number;
  /** this thread's own clone of /dev/fuse */
  readonly deviceFd: number;
  readonly ledgerFd: number;
  readonly statsFd: number;
  readonly memory: ThreadMemory;
  readonly turnMemory: TurnMemory;
  readonly requestMemory: RequestMemory;
}

/** main thread → thread: serve this disk, or (null) stop serving it */
export interface DiskUpdate {
  readonly nodeId: number;
  readonly served: ServedDisk | null;
}

/** main thread → thread: a request that the main thread has read from the device with that number */
export interface HandedBack {
  /** of the offer */
  readonly number: number;
  readonly bytes: Uint8Array;
  readonly device: number;
  readonly deviceFd: number;
}

/** A request in the request memory. Who has this gives the place back. */
export interface RequestPlace {
  readonly place: number;
  readonly length: number;
}

/** thread → main thread */
export type ThreadReport =
  /** everything is loaded and resident; the thread waits for a permit */
  | { readonly kind: 'loaded' }
  /** see growth.ts */
  | { readonly kind: 'memory-wanted'; readonly nodeId: number }
  /** see mapped-windows.ts */
  | { readonly kind: 'mapped' }
  /** all threads wait for disks, and nobody reads the device; only if the main thread lets it ask */
  | { readonly kind: 'thread-wanted' }
  /** `hasLent`: the thread has lent its permit */
  | {
      readonly kind: 'request';
      readonly device: number;
      /** the message, or where it is in the request memory */
      readonly bytes: Uint8Array | RequestPlace;
      readonly hasLent: boolean;
    }
  /** the connection has ended, or the device fails with an unexpected errno */
  | { readonly kind: 'gone'; readonly thread: number; readonly errno: string };

/** A disk, and the counters of its requests. */
interface Counted {
  readonly places: Places;
  readonly counters: Counters;
}

class RequestLoop {
  readonly #port: MessagePort;
  readonly #thread: number;
  /** the thread's own device, and the one of the request that is served now */
  readonly #own: { readonly device: number; readonly deviceFd: number };
  #device: number;
  #deviceFd: number;
  readonly #ledger: Ledger;
  readonly #gate: ThreadGate;
  readonly #server: WindowServer;
  readonly #pages: CounterPages;
  readonly #disks = new Map<number, Counted>();
  readonly #deferred: DeferredReads<Counted>;
  /** disks that were taken away while reads were put off: the main thread may wait until these reads are answered */
  readonly #takenAway: Counted[] = [];
  /** requests that wait until the one that is served now is answered */
  readonly #handedBack: HandedBack[] = [];
  #isNonBlocking = false;

  constructor(data: ThreadData, port: MessagePort) {
    const { thread, deviceFd, ledgerFd, statsFd, memory, turnMemory, requestMemory } = data;
    this.#port = port;
    this.#thread = thread;
    this.#own = { device: thread, deviceFd };
    this.#device = thread;
    this.#deviceFd = deviceFd;
    this.#ledger = new Ledger(ledgerFd);
    this.#gate = new ThreadGate(memory, thread, () => this.#report({ kind: 'thread-wanted' }));
    this.#server = new WindowServer(this.#ledger, this.#gate, {
      askMemory: (nodeId) => this.#report({ kind: 'memory-wanted', nodeId }),
      tellMapped: () => this.#report({ kind: 'mapped' }),
      splice: new SpliceReply(deviceFd),
      turns: new WriteTurns(turnMemory, thread),
      places: { all: new RequestPlaces(requestMemory), first: thread },
    });
    this.#pages = new CounterPages(statsFd, areaOfThread(thread));
    this.#deferred = new DeferredReads<Counted>(
      (read, mayWait) => this.#finishRead(read, mayWait),
      () => this.#gate.givePermit(),
    );
    this.#ledger.setThread(thread, gettid());
  }

  /** Serves until the connection ends. */
  run(): void {
    if (crashPoint !== null) crashPoint('load', 0);
    this.#report({ kind: 'loaded' });
    for (;;) {
      this.#awaitPermit();
      const { requestAddress, requestLimit } = this.#server;
      const n = read(this.#deviceFd, requestAddress, requestLimit);
      if (n >= 0) this.#takeAll(n);
      else if (!this.#mayReadAgain(-n)) return this.#end(-n);
    }
  }

  /** Waits for the permit to read. While reads are put off, it returns at once and makes read(2) non-blocking. */
  #awaitPermit(): void {
    const hasDeferred = this.#deferred.count > 0;
    if (!hasDeferred) {
      this.#gate.leave();
      this.#gate.takePermit(this.#takeMessages);
    }
    if (this.#isNonBlocking === hasDeferred) return;
    this.#isNonBlocking = hasDeferred;
    setNonBlocking(this.#deviceFd, hasDeferred);
  }

  /** To be called between requests. */
  readonly #takeMessages = (): void => {
    this.#takeUpdates();
    this.#serveHandedBack();
  };

  /** Takes the messages of the main thread: disks to serve, disks to stop serving, and requests for later. */
  #takeUpdates(): void {
    for (;;) {
      const received = receiveMessageOnPort(this.#port) as { message: DiskUpdate | HandedBack } | undefined;
      if (received === undefined) break;
      if ('bytes' in received.message) {
        const { message } = received;
        if (this.#gate.takeOffer(message.number)) this.#handedBack.push(message);
        continue;
      }
      const { nodeId, served } = received.message;
      const old = this.#disks.get(nodeId);
      if (old !== undefined && this.#deferred.count > 0) this.#takenAway.push(old);
      if (served === null) this.#disks.delete(nodeId);
      else this.#disks.set(nodeId, { places: placesOf(served), counters: this.#pages.of(served.ledgerIndex) });
    }
    this.#gate.seen();
  }

  #serveHandedBack(): void {
    for (let next = this.#handedBack.shift(); next !== undefined; next = this.#handedBack.shift()) {
      this.#device = next.device;
      this.#deviceFd = next.deviceFd;
      this.#server.request.bytes.set(next.bytes);
      this.#take(next.bytes.byteLength);
      this.#device = this.#own.device;
      this.#deviceFd = this.#own.deviceFd;
      this.#gate.leave();
    }
  }

  /** No request was read. @returns whether to read again */
  #mayReadAgain(errno: number): boolean {
    if (errno === E.EAGAIN && this.#deferred.count > 0) this.#settle();
    // ENOENT: the request was withdrawn while it was being read
    return errno === E.EINTR || errno === E.EAGAIN || errno === E.ENOENT;
  }

  #takeAll(n: number): void {
    this.#take(n);
    if (this.#handedBack.length > 0) this.#serveHandedBack();
  }

  /** A request of `n` bytes was read. */
  #take(n: number): void {
    const { request } = this.#server;
    if (crashPoint !== null) crashPoint('read', request.opcode);
    const begunMs = now();
    if (this.#gate.enter(request.nodeId)) this.#takeUpdates();
    this.#ledger.beginWork(this.#thread, request.uniqueId, request.nodeId);
    if (isWellFormed(request, n)) this.#serve(n, begunMs);
    else if (n >= abi.IN_HEADER_SIZE && !isOneWay(request.opcode)) this.#refuse();
    this.#settleIfDue(begunMs);
  }

  #serve(n: number, begunMs: number): void {
    const window = this.#disks.get(this.#server.request.nodeId);
    if (window === undefined) return this.#handOn(n);
    if (crashPoint !== null) crashPoint('io', this.#server.request.opcode);
    const server = this.#server;
    // else the reply goes to another device
    const isOwn = this.#device === this.#own.device;
    server.mayDefer = isOwn && this.#gate.ownsDevice && !this.#deferred.isFull;
    server.maySplice = isOwn;
    const length = server.serve(window.places);
    if (length === NOT_SERVED) this.#handOn(n);
    else if (length === DEFERRED) this.#putOff(window, begunMs);
    else this.#reply(window, length, begunMs);
  }

  /** @param length of the reply, or SENT */
  #reply(window: Counted, length: number, begunMs: number): void {
    const { opcode } = this.#server.request;
    if (crashPoint !== null) crashPoint('reply', opcode);
    // an error needs no action: the client was killed (ENOENT), or the bus is ending
    if (length !== SENT) write(this.#deviceFd, this.#server.replyAddress, length);
    if (crashPoint !== null) crashPoint('replied', opcode);
    this.#ledger.endWork(this.#thread);
    this.#count(window, begunMs);
  }

  /** Lets the main thread answer. */
  #handOn(n: number): void {
    this.#ledger.leaveWork(this.#thread);
    const { request } = this.#server;
    const mayLend = n <= MOST_LENDING_BYTES && isIo(request.opcode) && this.#deferred.count === 0;
    const hasLent = mayLend && this.#gate.lendPermit();
    const report = { kind: 'request', device: this.#device, hasLent } as const;
    const place = n < LARGE_REQUEST_BYTES ? null : this.#server.passOn();
    if (place !== null) return this.#report({ ...report, bytes: { place, length: n } });
    const bytes = new Uint8Array(request.bytes.subarray(0, n));
    this.#report({ ...report, bytes }, [bytes.buffer]);
  }

  #refuse(): void {
    write(this.#deviceFd, this.#server.replyAddress, this.#server.answer(-E.EINVAL));
    this.#ledger.leaveWork(this.#thread);
  }

  #putOff(window: Counted, begunMs: number): void {
    const { request } = this.#server;
    this.#ledger.leaveWork(this.#thread);
    this.#deferred.add({
      uniqueLow: request.uniqueLow,
      uniqueHigh: request.uniqueHigh,
      uniqueId: request.uniqueId,
      nodeId: request.nodeId,
      served: window.places.window,
      offset: window.places.at,
      size: window.places.length,
      place: this.#gate.putOff(request.nodeId),
      window,
      begunMs,
    });
  }

  /** Answers a read that was put off. @returns NOT_SERVED if that would block and must not */
  #finishRead(read: PutOff<Counted>, mayWait: boolean): number {
    this.#ledger.beginWork(this.#thread, read.uniqueId, read.nodeId);
    if (mayWait) this.#gate.waitsFor(read.place);
    const length = this.#server.finishRead(read, mayWait);
    if (length === NOT_SERVED) {
      this.#ledger.leaveWork(this.#thread);
      return length;
    }
    if (crashPoint !== null) crashPoint('reply', abi.READ);
    write(this.#deviceFd, this.#server.replyAddress, length);
    this.#gate.finished(read.place);
    this.#ledger.endWork(this.#thread);
    this.#count(read.window, read.begunMs);
    return length;
  }

  #settleIfDue(nowMs: number): void {
    const deferred = this.#deferred;
    if (deferred.count === 0) return;
    if (this.#takenAway.length > 0 || deferred.isFull || deferred.isDue(nowMs)) this.#settle();
  }

  /** Answers reads that were put off: those of disks that were taken away, else those that are ready. */
  #settle(): void {
    if (this.#takenAway.length === 0) return this.#deferred.settle(now());
    for (const window of this.#takenAway.splice(0)) this.#deferred.finishOf(window);
  }

  #count(window: Counted, begunMs: number): void {
    const { kind, result } = this.#server;
    if (kind !== NOT_COUNTED) countRequest(window.counters, kind, now() - begunMs, result);
  }

  /** The connection has ended: lets nobody wait for this thread. */
  #end(errno: number): void {
    this.#deferred.finishAll();
    this.#gate.leave();
    this.#gate.givePermit();
    this.#report({ kind: 'gone', thread: this.#thread, errno: errnoName(errno) });
  }

  #report(report: ThreadReport, transferred: ArrayBuffer[] = []): void {
    this.#port.postMessage(report, transferred);
  }
}

if (parentPort !== null) new RequestLoop(workerData as ThreadData, parentPort).run();
