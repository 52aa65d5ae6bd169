/**
 * Large reads without a copy of our own: pages of the image's cache go through a pipe to /dev/fuse, and are copied once,
 * to the client.
 *
 *      pread + write    page cache ──copy──► our buffer ──copy──► client
 *      splice           page cache ──reference──► pipe ──copy──► client
 *
 * Three calls in place of two, so it is worth it only where the copy costs more. The header is the pipe's first page.
 */
import { closeSync } from 'node:fs';
import type { Window } from '../../../drivers/driver.js';
import { E, makePipe, splice, write } from '../../../system/libc.js';
import { allocateResident } from '../../../system/resident.js';
import * as abi from '../protocol/abi.js';

/** from here on a copy costs more than a call */
export const SPLICE_BYTES = 128 << 10;
/** a place for each page of the largest read, one more where it does not begin at a page, and one for the header */
const PIPE_BYTES = 512 << 10;

interface Pipe {
  readonly reading: number;
  readonly writing: number;
}

export class SpliceReply {
  readonly #deviceFd: number;
  /** where the kernel is told the place in the file */
  readonly #position = allocateResident(8);
  #pipe: Pipe | null = null;
  #isPossible = true;

  /** @param deviceFd where replies go */
  constructor(deviceFd: number) {
    this.#deviceFd = deviceFd;
    // at once, so that what a server has open does not depend on what it was asked
    this.#open();
  }

  /**
   * Sends a reply of a header and a part of a window that is wholly inside.
   * @param header 16 bytes of resident memory, complete
   * @returns whether it was sent, or can no longer be; false: nothing was, and another way must be taken
   */
  send(window: Window, header: number, offset: number, length: number): boolean {
    // the kernel asks for no more at a time; a damaged request may
    const pipe = length <= abi.MAX_READ ? this.#open() : null;
    if (pipe === null) return false;
    if (write(pipe.writing, header, abi.OUT_HEADER_SIZE) !== abi.OUT_HEADER_SIZE) return this.#giveUp(pipe);
    const place = window.start + offset;
    this.#position.bytes.writeUInt32LE(place % 2 ** 32, 0);
    this.#position.bytes.writeUInt32LE(Math.floor(place / 2 ** 32), 4);
    for (let done = 0; done < length; ) {
      const n = splice(window.fd, this.#position.address, pipe.writing, length - done);
      if (n > 0) done += n;
      // the image has shrunk, or cannot be spliced, or the pipe is full after all: a plain read finds out
      else if (n !== -E.EINTR) return this.#giveUp(pipe);
    }
    const total = abi.OUT_HEADER_SIZE + length;
    const sent = splice(pipe.reading, 0, this.#deviceFd, total);
    if (sent === total) return true;
    this.#close(pipe);
    // the client was killed; all else may be a matter of splicing
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

  /** What is in the pipe must not become part of the next reply. */
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
