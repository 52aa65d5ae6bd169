/**
 * The disk of a whole image. If the image is a regular file that may be written, the disk can grow with it: a format above
 * it allocates at the end of its file.
 */
import { fdatasync, fstat, ftruncate } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { promisify } from 'node:util';
import { E } from '../../system/libc.js';
import type { Growth, RawDisk, Window } from '../driver.js';
import { errnoOf, FusetapError } from '../errors.js';
import { EXTENTS_PER_CALL, imageShrank, windowDisk, windowExtents } from './window.js';

const [fdatasyncAsync, fstatAsync, ftruncateAsync] = [promisify(fdatasync), promisify(fstat), promisify(ftruncate)];

/**
 * The disk of a window that is a whole image. It does not own the descriptor. The file may be larger than the window: see
 * Growth.measure.
 */
export function wholeImageDisk(window: Window): RawDisk {
  const fixed = windowDisk(window, async () => {});
  if (window.kind !== 'file' || window.readOnly) return fixed;
  const growth = new FileGrowth(window);
  return {
    ...fixed,
    growth,
    get size() {
      return growth.size;
    },
    extents: async (offset, length) => {
      await nextTurn();
      return windowExtents({ ...window, size: growth.size }, offset, length, EXTENTS_PER_CALL);
    },
  };
}

class FileGrowth implements Growth {
  /** bytes of the disk: at most those of the file */
  size: number;
  readonly #window: Window;
  /** one change at a time: a truncation to a size that was found earlier could make the file smaller */
  #last: Promise<unknown> = Promise.resolve();

  constructor(window: Window) {
    this.#window = window;
    this.size = window.size;
  }

  async measure(): Promise<number> {
    return await this.#inTurn(async () => {
      const { size } = await fstatAsync(this.#window.fd);
      this.size = Math.max(this.size, size);
      return this.size;
    });
  }

  async grow(size: number): Promise<void> {
    if (size <= this.size) return;
    await this.#inTurn(() => this.#grow(size));
  }

  async #grow(wanted: number): Promise<void> {
    const { fd, durable } = this.#window;
    const { size } = await fstatAsync(fd);
    // zeros must not take the place of the bytes that were lost
    if (size < this.size) throw imageShrank('grow', size);
    if (size < wanted)
      await ftruncateAsync(fd, wanted).catch((error: unknown) => Promise.reject(ofGrow(error, wanted)));
    // also if the file was large enough: an earlier call may have failed here
    if (durable) await fdatasyncAsync(fd);
    this.size = Math.max(this.size, size, wanted);
  }

  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#last.then(work, work);
    this.#last = result;
    return result;
  }
}

/** A client that writes inside its disk expects ENOSPC, not EFBIG. */
function ofGrow(error: unknown, size: number): unknown {
  const errno = errnoOf(error);
  if (errno !== E.ENOSPC && errno !== E.EDQUOT && errno !== E.EFBIG) return error;
  const why = errno === E.EFBIG ? 'its file system allows no file of that size' : 'its file system is full';
  return new FusetapError('NO_SPACE', `the image cannot grow to ${size} bytes: ${why}`, {
    errno: E.ENOSPC,
    operation: 'grow',
    cause: error,
  });
}
