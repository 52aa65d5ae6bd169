/**
 * Reads and writes that the kernel does while this thread goes on (io_submit(2)), for files that queue their requests. The
 * requests of one turn of the event loop are begun with one system call.
 *
 *      transfer ──► microtask: io_submit ──► looks for a moment whether they have finished ──► a thread waits for the next
 *
 * io_submit waits for a file that does not queue its requests, as most do not. A FUSE file with FOPEN_DIRECT_IO queues them,
 * but for two cases: too many of the bus are queued already (max_background), or, for a write, another call has the lock of
 * the file (fsync, fallocate).
 */
import { type AioQueue, addressOf, awaitAioEvents, makeAioQueue, submitAio, takeAioEvents } from '../../system/libc.js';

const IOCB_BYTES = 64;
const EVENT_BYTES = 32;
const [PREAD, PWRITE] = [0, 1];
/** as long as a thread takes to be woken */
const LOOK_MS = 0.05;
/** a file whose requests take longer may hang, and then its queue fills */
const STUCK_MS = 100;

export interface Transfer {
  readonly fd: number;
  readonly isWrite: boolean;
  readonly buffer: Uint8Array;
  readonly offset: number;
}

type Done = (result: number) => void;

export class Aio {
  readonly #queue: AioQueue;
  readonly #iocbs: DataView;
  readonly #iocbAddress: number;
  readonly #pointers: BigUint64Array;
  readonly #pointersAddress: number;
  /** one for the event loop, one for the thread that waits */
  readonly #events: readonly [DataView, DataView];
  readonly #free: number[];
  readonly #waiting: (Done | undefined)[] = [];
  /** the kernel uses them */
  readonly #buffers: (Uint8Array | undefined)[] = [];
  #toSubmit = 0;
  #underWay = 0;
  #lookUntilMs = 0;
  /** when a request has finished, or the first has begun */
  #movedMs = 0;
  #isLooking = false;
  #hasThread = false;

  private constructor(queue: AioQueue, count: number) {
    this.#queue = queue;
    this.#iocbs = new DataView(new ArrayBuffer(IOCB_BYTES * count));
    this.#iocbAddress = addressOf(this.#iocbs);
    this.#pointers = new BigUint64Array(count);
    this.#pointersAddress = addressOf(this.#pointers);
    const events = (): DataView => new DataView(new ArrayBuffer(EVENT_BYTES * count));
    this.#events = [events(), events()];
    this.#free = Array.from({ length: count }, (_, i) => i);
  }

  /** null if the kernel refuses. @param count how many requests may be under way */
  static open(count: number): Aio | null {
    const queue = makeAioQueue(count);
    return queue && new Aio(queue, count);
  }

  /** Whether another request may begin: it is not likely that it would wait. */
  get hasRoom(): boolean {
    if (this.#underWay === 0) return true;
    return this.#free.length > 0 && performance.now() - this.#movedMs < STUCK_MS;
  }

  /**
   * Begins a request, for which there must be room. The buffer must not change until it has finished.
   * Resolves to the count of bytes, or to −errno; to 0 if the kernel does not take it.
   */
  transfer({ fd, isWrite, buffer, offset }: Transfer): Promise<number> {
    const slot = this.#free.pop() ?? 0;
    const at = IOCB_BYTES * slot;
    const view = this.#iocbs;
    view.setUint32(at, slot, true);
    view.setUint16(at + 16, isWrite ? PWRITE : PREAD, true);
    view.setInt32(at + 20, fd, true);
    setNumber(view, at + 24, addressOf(buffer));
    setNumber(view, at + 32, buffer.byteLength);
    setNumber(view, at + 40, offset);
    this.#buffers[slot] = buffer;
    this.#pointers[this.#toSubmit] = BigInt(this.#iocbAddress + at);
    if (this.#toSubmit++ === 0) queueMicrotask(this.#submit);
    if (this.#underWay++ === 0) this.#movedMs = performance.now();
    return new Promise((resolve) => {
      this.#waiting[slot] = resolve;
    });
  }

  readonly #submit = (): void => {
    const count = this.#toSubmit;
    this.#toSubmit = 0;
    let begun = 0;
    while (begun < count) {
      const n = submitAio(this.#queue, count - begun, this.#pointersAddress + 8 * begun);
      if (n > 0) begun += n;
      else this.#finish((Number(this.#pointers[begun++]) - this.#iocbAddress) / IOCB_BYTES, 0);
    }
    this.#lookUntilMs = performance.now() + LOOK_MS;
    if (this.#isLooking || this.#hasThread) return;
    this.#isLooking = true;
    setImmediate(this.#look);
  };

  readonly #look = (): void => {
    const { ring } = this.#queue;
    if (Atomics.load(ring, 2) !== Atomics.load(ring, 3)) {
      this.#finishAll(takeAioEvents(this.#queue, this.#waiting.length, addressOf(this.#events[0])), this.#events[0]);
      this.#lookUntilMs = performance.now() + LOOK_MS;
    }
    this.#isLooking = this.#underWay > 0 && performance.now() < this.#lookUntilMs;
    if (this.#isLooking) setImmediate(this.#look);
    else if (this.#underWay > 0) void this.#wait();
  };

  async #wait(): Promise<void> {
    this.#hasThread = true;
    const n = await awaitAioEvents(this.#queue, this.#waiting.length, addressOf(this.#events[1]));
    this.#hasThread = false;
    this.#finishAll(n, this.#events[1]);
    if (this.#underWay === 0) return;
    this.#isLooking = true;
    this.#lookUntilMs = performance.now() + LOOK_MS;
    setImmediate(this.#look);
  }

  #finishAll(count: number, events: DataView): void {
    if (count > 0) this.#movedMs = performance.now();
    for (let i = 0; i < count; i++) {
      this.#finish(events.getUint32(EVENT_BYTES * i, true), Number(events.getBigInt64(EVENT_BYTES * i + 16, true)));
    }
  }

  #finish(slot: number, result: number): void {
    const done = this.#waiting[slot];
    this.#waiting[slot] = undefined;
    this.#buffers[slot] = undefined;
    this.#free.push(slot);
    this.#underWay -= 1;
    done?.(result);
  }
}

function setNumber(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}
