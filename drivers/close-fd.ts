/**
 * Closing what may be on a sick file system: close(2) may fail there (FUSE, NFS: EIO, ENOSPC, ENOTCONN), and it may not
 * come back. The descriptor is gone whatever it says.
 */
import { close } from 'node:fs';
import { within } from '../system/within.js';
import { FusetapError } from './errors.js';

/** for how long anybody waits for a close */
const CLOSE_LIMIT_MS = 10_000;

/** Closes all. @returns the first error: what was written may not have come to the disk */
export async function closeAll(fds: readonly number[]): Promise<Error | null> {
  const errors = await Promise.all(fds.map((fd) => inTime('close', closeFd(fd))));
  return errors.find((error) => error !== null) ?? null;
}

function closeFd(fd: number): Promise<void> {
  return new Promise((resolve, reject) => close(fd, (error) => (error ? reject(error) : resolve())));
}

/** How a close ended: null if it went well. It is not waited for longer than anybody should wait. */
export async function inTime(what: string, closing: Promise<void>): Promise<Error | null> {
  const late = new FusetapError('FAILED', `${what} has not come back after ${CLOSE_LIMIT_MS / 1000} s`);
  const ended = closing.then(
    () => null,
    (error: unknown) => (error instanceof Error ? error : new Error(String(error))),
  );
  return await within(ended, CLOSE_LIMIT_MS, late);
}
