/**
 * Reads and writes on the event loop that need not wait for a disk: they take less time than the way to libuv's pool and
 * back.
 *
 *      bytes in the page cache        preadv2, pwritev2 with RWF_NOWAIT: EAGAIN if the call would wait
 *      memory: a memfd, tmpfs         pread, pwrite; their file system refuses RWF_NOWAIT
 *      all others                     not here: NFS, FUSE and old kernels refuse RWF_NOWAIT, ext4 refuses it for writes
 */
import { addressOf, E, pread, preadNoWait, pwrite, pwriteNoWait } from '../../system/libc.js';
import { fileSystemOf } from '../../system/proc.js';
import type { Window } from '../driver.js';

/** larger requests are copied in parallel by libuv's pool */
const MOST_BYTES = 256 << 10;

export class WithoutWaiting {
  readonly #fd: number;
  readonly #kind: Window['kind'];
  #isMemory: boolean;
  /** false as soon as the file system has refused */
  #reads = true;
  #writes = true;

  constructor({ fd, kind }: Pick<Window, 'fd' | 'kind'>) {
    this.#fd = fd;
    this.#kind = kind;
    this.#isMemory = kind === 'memory';
  }

  /** Fills a buffer. @returns false if it could not do so now: then the bytes of the buffer are undefined */
  read(buffer: Uint8Array, position: number): boolean {
    const { byteLength } = buffer;
    if (byteLength > MOST_BYTES || byteLength === 0) return false;
    if (this.#reads && !this.#isMemory) {
      const n = preadNoWait(this.#fd, addressOf(buffer), byteLength, position);
      if (n !== -E.EOPNOTSUPP) return n === byteLength;
      this.#reads = false;
      this.#isMemory = this.#isTmpfs();
    }
    return this.#isMemory && pread(this.#fd, addressOf(buffer), byteLength, position) === byteLength;
  }

  /** Writes the first bytes of a buffer. @returns how many, often all or none; the caller writes the others */
  write(buffer: Uint8Array, position: number): number {
    const { byteLength } = buffer;
    if (byteLength > MOST_BYTES || byteLength === 0) return 0;
    if (this.#writes && !this.#isMemory) {
      const n = pwriteNoWait(this.#fd, addressOf(buffer), byteLength, position);
      if (n !== -E.EOPNOTSUPP) return Math.max(0, n);
      this.#writes = false;
      this.#isMemory = this.#isTmpfs();
    }
    return this.#isMemory ? Math.max(0, pwrite(this.#fd, addressOf(buffer), byteLength, position)) : 0;
  }

  #isTmpfs(): boolean {
    return this.#kind === 'file' && fileSystemOf(this.#fd) === 'tmpfs';
  }
}
