/**
 * The requests of a disk that are in flight: librbd does them in its own threads, and tells their ends through a pipe.
 *
 *      read, write … ──► rbd_aio_* ──► cluster ──► a byte in the pipe ──► rbd_poll_io_events ──► the promise
 *
 * A request cannot be called back, and librbd uses its memory until it ends. So each one has memory of its own, which only
 * returns to the pool at its end, also if its disk was given up and nobody waits any more.
 */
import { closeSync } from 'node:fs';
import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net';
import { addressOf, makePipe } from '../../system/libc.js';
import { EVENT_PIPE, type Librbd } from '../../system/librbd.js';
import { MemoryPool } from '../../system/memory-pool.js';
import { FusetapError } from '../errors.js';

/** Memory with an address, for one request at a time. */
export interface Room {
  readonly bytes: Buffer;
  readonly address: number;
}

/** one pool for all disks of a process */
export const rooms = new MemoryPool<Room>({
  smallestBytes: 4096,
  keptBytes: 16 << 20,
  make: (bytes) => {
    const made = Buffer.allocUnsafeSlow(bytes);
    return { bytes: made, address: addressOf(made) };
  },
  bytesOf: ({ bytes }) => bytes.length,
});

interface Waiting {
  resolve(result: number): void;
  reject(error: Error): void;
}

interface InFlight {
  readonly room: Room | null;
  waiting: Waiting | null;
}

/** ends that are fetched with one call */
const MOST_ENDS = 64;
/** one for each end that was not fetched yet: more than a kernel has requests under way */
const PIPE_BYTES = 4096;

export class Requests {
  readonly #library: Librbd;
  readonly #image: number;
  readonly #inFlight = new Map<number, InFlight>();
  readonly #cell = new BigUint64Array(1);
  readonly #cellAddress = addressOf(this.#cell);
  readonly #ends = new BigUint64Array(MOST_ENDS);
  readonly #endsAddress = addressOf(this.#ends);
  readonly #reader: Socket;
  readonly #writing: number;
  /** how many have ended */
  ended = 0;
  #isClosing = false;

  /** @param image open, and nothing has been asked of it yet @throws FusetapError */
  constructor(library: Librbd, image: number) {
    this.#library = library;
    this.#image = image;
    const pipe = makePipe(PIPE_BYTES);
    if (pipe === null) throw new FusetapError('FAILED', 'the system has no pipe left');
    this.#writing = pipe.writing;
    const callback = (): boolean => {
      this.#fetchEnds();
      return true;
    };
    // the types of Node know `onread` only for sockets that connect
    const options: SocketConstructorOpts & { onread: OnReadOpts } = {
      ...{ fd: pipe.reading, readable: true, writable: false },
      onread: { buffer: Buffer.alloc(4096), callback },
    };
    this.#reader = new Socket(options);
    this.#reader.on('error', () => {});
    const result = library.notify(image, this.#writing, EVENT_PIPE);
    if (result >= 0) return;
    this.end();
    throw new FusetapError('FAILED', `librbd does not tell the ends of requests: errno ${-result}`);
  }

  get count(): number {
    return this.#inFlight.size;
  }

  /**
   * Each resolves to what librbd returns: a count of bytes or 0, or a negative errno. The caller gives the room back then. If it
   * rejects, the room is still in use.
   */
  read(room: Room, offset: number, length: number): Promise<number> {
    return this.#begin(room, (completion) => {
      return this.#library.read(this.#image, offset, length, room.address, completion);
    });
  }

  write(room: Room, offset: number, length: number): Promise<number> {
    return this.#begin(room, (completion) => {
      return this.#library.write(this.#image, offset, length, room.address, completion);
    });
  }

  zero(offset: number, length: number, flags: number): Promise<number> {
    return this.#begin(null, (completion) => {
      return this.#library.writeZeroes(this.#image, offset, length, completion, flags, 0);
    });
  }

  flush(): Promise<number> {
    return this.#begin(null, (completion) => this.#library.flush(this.#image, completion));
  }

  #begin(room: Room | null, start: (completion: number) => number): Promise<number> {
    const made = this.#library.createCompletion(0, 0, this.#cellAddress);
    if (made < 0) return Promise.resolve(made);
    const completion = Number(this.#cell[0]);
    return new Promise((resolve, reject) => {
      // before it is started: its memory is librbd's from then on
      this.#inFlight.set(completion, { room, waiting: { resolve, reject } });
      const started = start(completion);
      if (started < 0) this.#end(completion, started);
    });
  }

  #fetchEnds(): void {
    while (!this.#isClosing) {
      const count = this.#library.poll(this.#image, this.#endsAddress, MOST_ENDS);
      for (let i = 0; i < count; i++) {
        const completion = Number(this.#ends[i]);
        this.#end(completion, this.#library.result(completion));
      }
      if (count < MOST_ENDS) return;
    }
  }

  #end(completion: number, result: number): void {
    const { room = null, waiting = null } = this.#inFlight.get(completion) ?? {};
    this.#inFlight.delete(completion);
    this.#library.release(completion);
    this.ended += 1;
    waiting?.resolve(result);
    if (room !== null && waiting === null) rooms.give(room);
  }

  /** Makes the requests in flight fail. They go on, and so does their memory. */
  giveUp(error: Error): void {
    for (const request of this.#inFlight.values()) {
      request.waiting?.reject(error);
      request.waiting = null;
    }
  }

  /** From now on nothing is asked of the image: another thread closes it, which waits for what is in flight. */
  beginClosing(): void {
    this.#isClosing = true;
  }

  /** The image was closed. */
  end(): void {
    this.#isClosing = true;
    this.#inFlight.clear();
    this.#reader.destroy();
    closeSync(this.#writing);
  }
}
