/**
 * One life of a server: the disks that it writes, over files in memory that survive it. Each call is recorded when it is
 * done. The server can be killed at any call: what it had asked for and was not done never happens, and never resolves.
 *
 *      driver ──► disk ──► queue ──► one call each turn of the event loop ──► files, tape
 *
 * Calls that a driver makes at the same time are done in the order that `order` chooses, as the threads of a pool would.
 * So a driver that does not wait where it must is found, too.
 */
import { type Disk, frontDisk } from '../../drivers/disk.js';
import type { Extent, RawDisk } from '../../drivers/driver.js';
import { FusetapError } from '../../drivers/errors.js';
import { PAGE_BYTES, type SparseBytes } from './sparse-bytes.js';
import { apply, type Call, type Files, fileOf } from './tape.js';

/**
 * How far the call gets at which the server is killed.
 * - `done`: done, and the server goes on until its next call
 * - `unreported`: done, but the server never knows
 * - `torn`: a write or a zero is done up to a border of pages, and the server never knows
 */
export type Reach = 'done' | 'unreported' | 'torn';

/** When a server is killed. */
export interface Ending {
  /** the number of the call, from 1; with `done` also 0: before the first */
  readonly at: number;
  readonly reach: Reach;
}

/** A call that fails, once; the server goes on. */
export interface Fault {
  /** the number of the call, from 1 */
  readonly at: number;
  readonly errno: number;
}

export interface LifeOptions {
  readonly files: Files;
  /** which of `waiting` calls is done next, from 0; default: the oldest */
  readonly order?: (waiting: number) => number;
  readonly ending?: Ending;
  readonly fault?: Fault;
}

interface Read {
  readonly kind: 'read';
  readonly file: string;
  readonly offset: number;
  readonly buffer: Uint8Array;
}

type Wish = Call | Read;

interface Waiting {
  readonly wish: Wish;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export class Life {
  /** what was done, in order */
  readonly tape: Call[] = [];
  /** resolves when the server is killed */
  readonly died: Promise<void>;
  readonly #options: LifeOptions;
  readonly #queue: Waiting[] = [];
  #isTurning = false;
  #die: () => void = () => {};
  #isDead = false;
  #calls = 0;

  constructor(options: LifeOptions) {
    this.#options = options;
    this.died = new Promise((resolve) => (this.#die = resolve));
  }

  get files(): Files {
    return this.#options.files;
  }

  /** whether a call has failed */
  get hasFailed(): boolean {
    return this.#calls >= (this.#options.fault?.at ?? Number.POSITIVE_INFINITY);
  }

  /** Opens a file as a disk, as `aio` would. A write that reaches beyond its end is a fault: it would be cut. */
  disk(role: string, options: { readonly readOnly: boolean }): Disk {
    const disk = frontDisk(new LivingDisk(this, role), options);
    const write = disk.write.bind(disk);
    disk.write = async (buffer, offset, how) => {
      if (offset + buffer.byteLength <= disk.size) return await write(buffer, offset, how);
      throw new RangeError(`write ${offset}+${buffer.byteLength} of ${role}, which ends at byte ${disk.size}`);
    };
    return disk;
  }

  /** @returns a promise that never settles if the server is killed before */
  call(wish: Wish): Promise<void> {
    if (this.#isDead) return new Promise(() => {});
    // with no other call under way, the order does not matter
    if (wish.kind === 'read' && this.#queue.length === 0) return this.#readNow(wish);
    return new Promise((resolve, reject) => {
      this.#queue.push({ wish, resolve, reject });
      this.#turnLater();
    });
  }

  /** Kills the server now, at no call. */
  kill(): void {
    this.#isDead = true;
    this.#queue.length = 0;
    this.#die();
  }

  #turnLater(): void {
    if (this.#isTurning) return;
    this.#isTurning = true;
    // all that a finished call leads to has been asked for by then
    setImmediate(() => {
      this.#isTurning = false;
      this.#turn();
      if (this.#queue.length > 0) this.#turnLater();
    });
  }

  #turn(): void {
    const { order = () => 0 } = this.#options;
    const [next] = this.#queue.length === 0 ? [] : this.#queue.splice(order(this.#queue.length), 1);
    if (next === undefined) return;
    const { wish, resolve, reject } = next;
    if (wish.kind !== 'read') return this.#change(wish, resolve, reject);
    this.#readNow(wish).then(resolve, reject);
  }

  async #readNow({ file, offset, buffer }: Read): Promise<void> {
    fileOf(this.files, file).read(buffer, offset);
  }

  #change(call: Call, resolve: () => void, reject: (error: Error) => void): void {
    const { ending, fault } = this.#options;
    if (this.#calls === ending?.at) return this.kill();
    this.#calls++;
    if (this.#calls === fault?.at) return reject(failure(call, fault.errno));
    const isLast = this.#calls === ending?.at && ending.reach !== 'done';
    const done = keepBytes(isLast && ending.reach === 'torn' ? tear(call) : call);
    apply(this.files, done);
    this.tape.push(done);
    if (isLast) this.kill();
    else resolve();
  }
}

function failure(call: Call, errno: number): FusetapError {
  const code = call.kind === 'grow' ? 'NO_SPACE' : 'FAILED';
  return new FusetapError(code, `${call.kind}: made to fail`, { errno, operation: call.kind });
}

/** The bytes as they are now: a driver may use its buffer again. The kernel, too, reads them when the call is done. */
function keepBytes(call: Call): Call {
  return call.kind === 'write' ? { ...call, bytes: Buffer.from(call.bytes) } : call;
}

/** The part of a call that is done if the process is killed in it: whole pages, about half. */
function tear(call: Call): Call {
  if (call.kind !== 'write' && call.kind !== 'zero') return call;
  const length = call.kind === 'write' ? call.bytes.length : call.length;
  const firstBorder = PAGE_BYTES - (call.offset % PAGE_BYTES);
  if (firstBorder >= length) return call;
  const borders = Math.floor((length - firstBorder - 1) / PAGE_BYTES);
  const done = firstBorder + Math.floor(borders / 2) * PAGE_BYTES;
  return call.kind === 'write' ? { ...call, bytes: call.bytes.subarray(0, done) } : { ...call, length: done };
}

/** A file as one process has it open. */
class LivingDisk implements RawDisk {
  readonly growth = {
    measure: async (): Promise<number> => this.#measure(),
    grow: async (size: number): Promise<void> => {
      await this.#life.call({ kind: 'grow', file: this.#role, durable: false, size });
      this.#measure();
    },
  };
  readonly #life: Life;
  readonly #role: string;
  #size: number;

  constructor(life: Life, role: string) {
    this.#life = life;
    this.#role = role;
    this.#size = this.#file().size;
  }

  get size(): number {
    return this.#size;
  }

  read(buffer: Uint8Array, offset: number): Promise<void> {
    return this.#life.call({ kind: 'read', file: this.#role, buffer, offset });
  }

  write(buffer: Uint8Array, offset: number, { durable }: { durable: boolean }): Promise<void> {
    const bytes = Buffer.from(buffer.buffer, buffer.byteOffset, buffer.byteLength);
    return this.#life.call({ kind: 'write', file: this.#role, durable, offset, bytes });
  }

  zero(offset: number, length: number, { punch, durable }: { punch: boolean; durable: boolean }): Promise<void> {
    return this.#life.call({ kind: 'zero', file: this.#role, durable, offset, length, punch });
  }

  flush(): Promise<void> {
    return this.#life.call({ kind: 'flush', file: this.#role, durable: false, covers: this.#life.tape.length });
  }

  async extents(offset: number, length: number): Promise<Extent[]> {
    const file = this.#file();
    const extents: Extent[] = [];
    for (let at = offset; at < offset + length; ) {
      const hole = file.nextData(at) > at;
      const end = Math.min(offset + length, hole ? file.nextData(at) : file.nextHole(at));
      extents.push({ offset: at, length: end - at, hole });
      at = end;
    }
    return extents;
  }

  async close(): Promise<void> {}

  #file(): SparseBytes {
    return fileOf(this.#life.files, this.#role);
  }

  #measure(): number {
    this.#size = Math.max(this.#size, this.#file().size);
    return this.#size;
  }
}
