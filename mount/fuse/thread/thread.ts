/**
 * A worker thread: reads requests from its own clone of /dev/fuse, serves those for windows, hands all others to the
 * main thread, which replies on the same descriptor. The loop never ends while the bus lives.
 */
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { E, errnoName, gettid, read, setNonBlocking, write } from '../../../system/libc.js';
import { areaOfThread, CounterPages, type Counters, countRequest, NOT_COUNTED, now } from '../../ledger/counters.js';
import { Ledger } from '../../ledger/ledger.js';
import * as abi from '../protocol/abi.js';
import { isOneWay, isWellFormed, type Request } from '../protocol/message.js';
import { crashPoint } from './crash-point.js';
import { DeferredReads } from './deferred-reads.js';
import { DEFERRED, type DeferredRead, NOT_SERVED, SENT, type ServedWindow, WindowServer } from './serve-window.js';
import { SpliceReply } from './splice-reply.js';
import { ThreadGate, type ThreadMemory } from './thread-control.js';
import { type TurnMemory, WriteTurns } from './write-turns.js';

export interface ThreadData {
  readonly thread: number;
  /** the clone of /dev/fuse that is this thread's own */
  readonly deviceFd: number;
  readonly ledgerFd: number;
  readonly statsFd: number;
  readonly memory: ThreadMemory;
  readonly turnMemory: TurnMemory;
}

/** main thread → thread: serve this window, or (null) no longer */
export interface WindowUpdate {
  readonly nodeId: number;
  readonly served: ServedWindow | null;
}

/** thread → main thread */
export type ThreadReport =
  /** everything is loaded and resident; the thread waits for a permit */
  | { readonly kind: 'loaded' }
  /** see growth.ts */
  | { readonly kind: 'memory-wanted'; readonly nodeId: number }
  /** see mapped-windows.ts */
  | { readonly kind: 'mapped' }
  | { readonly kind: 'request'; readonly thread: number; readonly bytes: Uint8Array }
  /** the connection is gone, or (with an errno) the device fails in a way that is not in its contract */
  | { readonly kind: 'gone'; readonly thread: number; readonly errno: string };

/** A window and where its requests are counted. */
interface Counted {
  readonly served: ServedWindow;
  readonly counters: Counters;
}

function run(data: ThreadData, port: MessagePort): void {
  const gate = new ThreadGate(data.memory, data.thread);
  const ledger = new Ledger(data.ledgerFd);
  const askMemory = (nodeId: number): void => {
    port.postMessage({ kind: 'memory-wanted', nodeId } satisfies ThreadReport);
  };
  const tellMapped = (): void => port.postMessage({ kind: 'mapped' } satisfies ThreadReport);
  const splice = new SpliceReply(data.deviceFd);
  const turns = new WriteTurns(data.turnMemory, data.thread);
  const server = new WindowServer(ledger, gate, { askMemory, tellMapped, splice, turns });
  const windows = new Map<number, Counted>();
  const pages = new CounterPages(data.statsFd, areaOfThread(data.thread));
  const { request, requestAddress, requestLimit, replyAddress } = server;
  const { deviceFd, thread } = data;

  const takeUpdates = (): void => {
    for (;;) {
      const received = receiveMessageOnPort(port) as { message: WindowUpdate } | undefined;
      if (received === undefined) break;
      const { nodeId, served } = received.message;
      const old = windows.get(nodeId);
      if (old !== undefined && deferred.count > 0) takenAway.push(old);
      if (served === null) windows.delete(nodeId);
      else windows.set(nodeId, { served, counters: pages.of(served.ledgerIndex) });
    }
    gate.seen();
  };

  const deferred = new DeferredReads<Counted>(
    (read, mayWait) => {
      ledger.beginWork(thread, read.uniqueId);
      if (mayWait) gate.waitsFor(read.place);
      const length = server.finishRead(read.window.served, read, mayWait);
      if (length === NOT_SERVED) {
        ledger.leaveWork(thread);
        return length;
      }
      if (crashPoint !== null) crashPoint('reply', abi.READ);
      write(deviceFd, replyAddress, length);
      gate.finished(read.place);
      ledger.endWork(thread);
      countRequest(read.window.counters, server.kind, now() - read.begunMs, server.result);
      return length;
    },
    () => gate.givePermit(),
  );
  /** windows that were taken away while reads were put off: the main thread may wait until those are answered */
  const takenAway: Counted[] = [];
  let isNonBlocking = false;

  /** Answers reads that were put off. */
  const settle = (): void => {
    if (takenAway.length === 0) return deferred.settle(now());
    for (const window of takenAway.splice(0)) deferred.finishOf(window);
  };

  const handOver = (length: number): void => {
    const bytes = new Uint8Array(request.bytes.subarray(0, length));
    port.postMessage({ kind: 'request', thread, bytes } satisfies ThreadReport, [bytes.buffer as ArrayBuffer]);
  };

  ledger.setThread(thread, gettid());
  if (crashPoint !== null) crashPoint('load', 0);
  port.postMessage({ kind: 'loaded' } satisfies ThreadReport);
  for (;;) {
    if (deferred.count === 0) {
      gate.leave();
      gate.takePermit(takeUpdates);
    }
    if (isNonBlocking !== deferred.count > 0) {
      isNonBlocking = !isNonBlocking;
      setNonBlocking(deviceFd, isNonBlocking);
    }
    const n = read(deviceFd, requestAddress, requestLimit);
    if (n < 0) {
      // ENOENT: the request was withdrawn while it was being read
      if (n === -E.EAGAIN && deferred.count > 0) settle();
      if (n === -E.EINTR || n === -E.EAGAIN || n === -E.ENOENT) continue;
      // nobody is to wait for a thread that has ended
      deferred.finishAll();
      gate.leave();
      gate.givePermit();
      port.postMessage({ kind: 'gone', thread, errno: errnoName(-n) } satisfies ThreadReport);
      return;
    }
    if (crashPoint !== null) crashPoint('read', request.opcode);
    const begunMs = now();
    if (gate.enter(request.nodeId)) takeUpdates();
    ledger.beginWork(thread, request.uniqueId);
    if (isWellFormed(request, n)) {
      const window = windows.get(request.nodeId);
      const { opcode } = request;
      if (crashPoint !== null && window !== undefined) crashPoint('io', opcode);
      server.mayDefer = gate.ownsDevice && !deferred.isFull;
      const length = window === undefined ? NOT_SERVED : server.serve(window.served);
      if (length === DEFERRED && window !== undefined) {
        ledger.leaveWork(thread);
        deferred.add({ ...readOf(request), place: gate.putOff(request.nodeId), window, begunMs });
      } else if (window === undefined || length === NOT_SERVED) {
        // from here on the main thread answers for it
        ledger.leaveWork(thread);
        handOver(n);
      } else {
        // a failed reply is not ours to mend: the client was killed (ENOENT), or the bus is ending
        if (crashPoint !== null) crashPoint('reply', opcode);
        if (length !== SENT) write(deviceFd, replyAddress, length);
        if (crashPoint !== null) crashPoint('replied', opcode);
        ledger.endWork(thread);
        if (server.kind !== NOT_COUNTED) countRequest(window.counters, server.kind, now() - begunMs, server.result);
      }
    } else if (n >= 40 && !isOneWay(request.opcode)) {
      write(deviceFd, replyAddress, server.answer(-E.EINVAL));
      ledger.leaveWork(thread);
    }
    if (deferred.count > 0 && (takenAway.length > 0 || deferred.isFull || deferred.isDue(begunMs))) settle();
  }
}

function readOf(request: Request): DeferredRead & { uniqueId: number } {
  const { uniqueLow, uniqueHigh, uniqueId } = request;
  return {
    uniqueLow,
    uniqueHigh,
    uniqueId,
    offset: request.bodyU64(abi.RW_OFFSET),
    size: request.bodyU32(abi.RW_SIZE),
  };
}

if (parentPort !== null) run(workerData as ThreadData, parentPort);
