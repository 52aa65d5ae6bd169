/** Gives a new file its size, and space. */
import { ftruncate } from 'node:fs';
import { promisify } from 'node:util';
import { E, fallocateAsync, SystemCallError } from '../../system/libc.js';
import { type Disk, frontDisk } from '../disk.js';
import { errnoOf, type FusetapError, toFusetapError } from '../errors.js';
import { windowDisk } from '../segments/window.js';

const ftruncateAsync = promisify(ftruncate);

/** Makes a file that long; it takes no space for that. @throws FusetapError */
export async function sizeFile(fd: number, size: number): Promise<void> {
  try {
    await ftruncateAsync(fd, size);
  } catch (error) {
    const hint = errnoOf(error) === E.EFBIG ? 'that file system does not allow files of this size' : undefined;
    throw toFusetapError(error, `a file cannot have ${size} bytes: ${(error as NodeJS.ErrnoException).code}`, { hint });
  }
}

/** Gives a file its size. @returns a disk that writes it; its `close` leaves the file open @throws FusetapError */
export async function newFileDisk(fd: number, size: number): Promise<Disk> {
  await sizeFile(fd, size);
  const window = { fd, start: 0, size, kind: 'file', readOnly: false, durable: false } as const;
  return frontDisk(
    windowDisk(window, async () => {}),
    { readOnly: false },
  );
}

/** Gives a file space for all its bytes. @throws FusetapError UNSUPPORTED if its file system cannot; NO_SPACE */
export async function allocateFile(fd: number, size: number): Promise<void> {
  for (;;) {
    try {
      return await fallocateAsync(fd, 0, 0, size);
    } catch (error) {
      if (!(error instanceof SystemCallError) || error.errno !== E.EINTR) throw ofAllocate(error, size);
    }
  }
}

function ofAllocate(error: unknown, size: number): FusetapError {
  const isUnsupported = errnoOf(error) === E.EOPNOTSUPP;
  const why = isUnsupported ? 'its file system cannot reserve space' : (error as Error).message;
  const hint = isUnsupported ? 'omit preallocation=falloc' : undefined;
  return toFusetapError(error, `the file cannot be given ${size} bytes of space: ${why}`, { hint });
}
