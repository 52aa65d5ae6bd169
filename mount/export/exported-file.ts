/**
 * The file of a vbd or partition, as an exporter uses it: like any other program, through the kernel. So the exporter waits
 * when the server of the bus is replaced, and its clients see a pause.
 *
 *      memory that the kernel serves itself    pread, pwrite on the event loop: a few microseconds
 *      the server of the bus serves them       io_submit, which does not wait: the kernel queues them (aio.ts)
 *      large ones, and all others              libuv's pool: a disk may take long
 */
import { constants, fstat, fstatSync, openSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { closeAll } from '../../drivers/close-fd.js';
import { type Disk, frontDisk } from '../../drivers/disk.js';
import type { Extent, RawDisk } from '../../drivers/driver.js';
import { errnoOf } from '../../drivers/errors.js';
import { readFully, writeFully } from '../../drivers/file-io.js';
import { windowDisk } from '../../drivers/segments/window.js';
import { addressOf, E, lseekAsync, pread, pwrite, SEEK_DATA, SEEK_HOLE, SystemCallError } from '../../system/libc.js';
import { Aio } from './aio.js';

/** larger requests of memory are copied by libuv's pool: other clients would wait for them */
const MOST_AT_ONCE_BYTES = 1 << 20;
/** the kernel would split larger ones; it queues 192 for a bus, and then lets callers wait */
const MOST_QUEUED_BYTES = 256 << 10;
const MOST_QUEUED = 64;
/** of one answer: a client asks again for the rest */
const MOST_EXTENTS = 256;

/** a vbd that does not answer keeps the size that it had */
const MEASURE_MS = 2_000;

const fstatAsync = promisify(fstat);

export interface FileToExport {
  /** absolute */
  readonly path: string;
  readonly readOnly: boolean;
  /** its bytes are in memory, and the kernel passes requests through to it: no request waits */
  readonly isMemory: boolean;
  /** the server of the bus serves each request, and the kernel queues it meanwhile */
  readonly isQueued: boolean;
}

interface Descriptors {
  readonly fd: number;
  durableFd: number;
  queuedFd: number;
}

const openOf = (fds: Descriptors): number[] => Object.values(fds).filter((fd) => fd >= 0);

export class ExportedFile {
  readonly readOnly: boolean;
  #size: number;
  #measuring: Promise<void> | null = null;
  readonly #disk: Disk;
  readonly #raw: RawDisk;
  readonly #fd: number;
  /** the same file; what is written there is durable. −1 for a read-only file */
  readonly #durableFd: number;
  /** the same file, for io_submit: before Linux 6.13 that waits for a FUSE file without O_DIRECT. −1: it is not used */
  readonly #queuedFd: number;
  readonly #isMemory: boolean;
  readonly #aio: Aio | null;
  /** calls under way that lock the file until the server of the bus has answered: a write on the event loop would wait for them */
  #locking = 0;

  private constructor({ readOnly, isMemory, isQueued }: FileToExport, fds: Descriptors) {
    this.#fd = fds.fd;
    this.#durableFd = fds.durableFd;
    this.#queuedFd = fds.queuedFd;
    this.#size = fstatSync(fds.fd).size;
    this.readOnly = readOnly;
    this.#isMemory = isMemory;
    this.#aio = isQueued && fds.queuedFd >= 0 ? Aio.open(MOST_QUEUED) : null;
    const window = { fd: fds.fd, start: 0, size: this.size, kind: 'file', readOnly, durable: false } as const;
    const raw = windowDisk(window, async () => {
      const error = await closeAll(openOf(fds));
      if (error !== null) throw error;
    });
    this.#raw = Object.defineProperty({ ...raw }, 'size', { get: () => this.#size });
    this.#disk = frontDisk(this.#raw, { readOnly });
  }

  /** @throws the system's error */
  static open(file: FileToExport): ExportedFile {
    const { path, readOnly } = file;
    const mode = readOnly ? constants.O_RDONLY : constants.O_RDWR;
    const fds: Descriptors = { fd: openSync(path, mode), durableFd: -1, queuedFd: -1 };
    try {
      if (!readOnly) fds.durableFd = openSync(path, mode | constants.O_DSYNC);
      if (file.isQueued) fds.queuedFd = openSync(path, mode | constants.O_DIRECT);
      return new ExportedFile(file, fds);
    } catch (error) {
      void closeAll(openOf(fds));
      throw error;
    }
  }

  /** as it was measured last */
  get size(): number {
    return this.#size;
  }

  /** Looks whether the vbd has another size now. Resolves in time, and does not reject: the size may be the old one then. */
  async measure(): Promise<void> {
    // many clients that come meanwhile take one thread
    this.#measuring ??= fstatAsync(this.#fd)
      .then(
        ({ size }) => {
          this.#size = size;
        },
        () => {},
      )
      .finally(() => {
        this.#measuring = null;
      });
    await Promise.race([this.#measuring, delay(MEASURE_MS, undefined, { ref: false })]);
  }

  /** Fills a buffer; the range must be inside the file. @returns null if it has been done */
  read(buffer: Uint8Array, offset: number): Promise<unknown> | null {
    if (this.#isMemory && buffer.byteLength <= MOST_AT_ONCE_BYTES) {
      if (pread(this.#fd, addressOf(buffer), buffer.byteLength, offset) === buffer.byteLength) return null;
    }
    const aio = this.#aio;
    if (aio?.hasRoom && buffer.byteLength <= MOST_QUEUED_BYTES) return this.#readQueued(aio, buffer, offset);
    return this.#readByPool(buffer, offset);
  }

  /** Writes a buffer; the range must be inside the file. @returns null if it has been done */
  write(buffer: Uint8Array, offset: number, isDurable: boolean): Promise<unknown> | null {
    // memory is never durable
    if (this.#isMemory && this.#locking === 0 && buffer.byteLength <= MOST_AT_ONCE_BYTES) {
      if (pwrite(this.#fd, addressOf(buffer), buffer.byteLength, offset) === buffer.byteLength) return null;
    }
    const aio = isDurable || this.#locking > 0 ? null : this.#aio;
    if (aio?.hasRoom && buffer.byteLength <= MOST_QUEUED_BYTES) return this.#writeQueued(aio, buffer, offset);
    // the front of the disk would ask for the size of the file before each write: a request to the server of the bus
    return writeFully(isDurable ? this.#durableFd : this.#fd, buffer, offset);
  }

  async #readQueued(aio: Aio, buffer: Uint8Array, offset: number): Promise<void> {
    const n = await aio.transfer({ fd: this.#queuedFd, isWrite: false, buffer, offset });
    if (n < 0) throw new SystemCallError('read', -n);
    if (n < buffer.byteLength) await this.#readByPool(buffer.subarray(n), offset + n);
  }

  async #writeQueued(aio: Aio, buffer: Uint8Array, offset: number): Promise<void> {
    const n = await aio.transfer({ fd: this.#queuedFd, isWrite: true, buffer, offset });
    if (n < 0) throw new SystemCallError('write', -n);
    if (n < buffer.byteLength) await writeFully(this.#fd, buffer.subarray(n), offset + n);
  }

  async #readByPool(buffer: Uint8Array, offset: number): Promise<void> {
    const length = await readFully(this.#fd, buffer, offset);
    if (length < buffer.byteLength) throw new SystemCallError('read', E.EIO);
  }

  /** Flushes that failed. The kernel tells each failure only once to all that use one open file. */
  readonly failures: { count: number; last: unknown } = { count: 0, last: null };

  /** All that was written before is durable then. */
  async flush(): Promise<void> {
    try {
      await this.#lock(() => this.#disk.flush());
    } catch (error) {
      this.failures.count += 1;
      this.failures.last = error;
      throw error;
    }
  }

  async #lock(work: () => Promise<void>): Promise<void> {
    this.#locking += 1;
    try {
      // writes that are about to be queued would wait for the lock
      await null;
      await work();
    } finally {
      this.#locking -= 1;
    }
  }

  /** Makes a range read as zeros. @param punch whether its space may be freed */
  zero(offset: number, length: number, options: { readonly punch: boolean; readonly durable: boolean }): Promise<void> {
    return this.#lock(() => this.#disk.zero(offset, length, options));
  }

  /** Says that the bytes of a range are not needed. It need not be done. */
  async trim(offset: number, length: number): Promise<void> {
    try {
      // the front of the disk would write zeros where holes cannot be punched
      await this.#lock(async () => this.#raw.zero?.(offset, length, { punch: true, durable: false }));
    } catch (error) {
      if (errnoOf(error) !== E.EOPNOTSUPP) throw error;
    }
  }

  /** The first extents of a range, in order and without gaps; perhaps not all. Other clients do not wait for it. */
  async extents(offset: number, length: number): Promise<Extent[]> {
    const end = offset + length;
    const extents: Extent[] = [];
    let hole = false;
    for (let at = offset; at < end && extents.length < MOST_EXTENTS; hole = !hole) {
      const n = await lseekAsync(this.#fd, at, hole ? SEEK_DATA : SEEK_HOLE);
      if (n < 0 && n !== -E.ENXIO) throw new SystemCallError('lseek', -n);
      const next = n < 0 ? end : Math.min(end, n);
      if (next > at) extents.push({ offset: at, length: next - at, hole });
      at = next;
    }
    return extents;
  }

  /** To be called when no request is under way. */
  close(): Promise<void> {
    return this.#disk.close();
  }
}
