/**
 * Large reads without a copy in this process: pages of the page cache go through a pipe to /dev/fuse, and the kernel
 * copies them once, to the client.
 *
 *      pread + write    page cache ──copy──► our buffer ──copy──► client
 *      splice           page cache ──reference──► pipe ──copy──► client
 *
 * It needs three calls instead of two, so it pays only for large reads. The header is the first page in the pipe.
 */
import { closeSync } from 'node:fs';
import type { Window } from '../../../drivers/driver.js';
import { E, makePipe, splice, write } from '../../../system/libc.js';
import { allocateResident } from '../../../system/resident.js';
import * as abi from '../protocol/abi.js';

/** from this size on, a copy costs more than a call */
export const SPLICE_BYTES = 128 << 10;
/**
 * a slot for each page of the largest read, one more if it does not begin at a page boundary, and one for the header
 */
const PIPE_BYTES = 512 << 10;

interface Pipe {
  readonly reading: number;
  readonly writing: number;
}

export class SpliceReply {
  readonly #deviceFd: number;
  /** the offset in the file, an argument of splice(2) */
  readonly #position = allocateResident(8);
  #pipe: Pipe | null = null;
  #isPossible = true;

  /** @param deviceFd the descriptor to write replies to */
  constructor(deviceFd: number) {
    this.#deviceFd = deviceFd;
    // at once, so that the open descriptors of a server do not depend on its requests
    this.#open();
  }

  /**
   * Sends a reply: a header, and a range that is wholly inside the window.
   * @param header address of 16 bytes of resident memory, complete
   * @returns false if nothing was sent and the caller must copy; true if it was sent or the request is gone
   */
  send(window: Window, header: number, offset: number, length: number): boolean {
    // the kernel never asks for more at a time; a damaged request may
    const pipe = length <= abi.MAX_READ ? this.#open() : null;
    if (pipe === null) return false;
    if (write(pipe.writing, header, abi.OUT_HEADER_SIZE) !== abi.OUT_HEADER_SIZE) return this.#giveUp(pipe);
    const place = window.start + offset;
    this.#position.bytes.writeUInt32LE(place % 2 ** 32, 0);
    this.#position.bytes.writeUInt32LE(Math.floor(place / 2 ** 32), 4);
    for (let done = 0; done < length; ) {
      const n = splice(window.fd, this.#position.address, pipe.writing, length - done);
      if (n > 0) done += n;
      // the image has shrunk, or does not support splice, or the pipe is full: a plain read finds out
      else if (n !== -E.EINTR) return this.#giveUp(pipe);
    }
    const total = abi.OUT_HEADER_SIZE + length;
    const sent = splice(pipe.reading, 0, this.#deviceFd, total);
    if (sent === total) return true;
    this.#close(pipe);
    // ENOENT: the client was killed; other errors may be caused by splice
    return sent === -E.ENOENT;
  }

  #open(): Pipe | null {
    if (!this.#isPossible) return null;
    if (this.#pipe === null) {
      this.#pipe = makePipe(PIPE_BYTES);
      this.#isPossible = this.#pipe !== null;
    }
    return this.#pipe;
  }

  /** Discards the bytes in the pipe, which must not become part of the next reply. */
  #close({ reading, writing }: Pipe): void {
    closeSync(reading);
    closeSync(writing);
    this.#pipe = null;
  }

  #giveUp(pipe: Pipe): false {
    this.#close(pipe);
    return false;
  }
}
