/**
 * Closes descriptors of files whose file system may be broken. close(2) may fail there (FUSE, NFS: EIO, ENOSPC,
 * ENOTCONN) or never return. The descriptor is released in any case.
 */
import { close } from 'node:fs';
import { within } from '../system/within.js';
import { FusetapError } from './errors.js';

/** the longest wait for one close */
const CLOSE_LIMIT_MS = 10_000;

/** Closes all. @returns the first error: written data may not have reached the disk */
export async function closeAll(fds: readonly number[]): Promise<Error | null> {
  const errors = await Promise.all(fds.map((fd) => inTime('close', closeFd(fd))));
  return errors.find((error) => error !== null) ?? null;
}

function closeFd(fd: number): Promise<void> {
  return new Promise((resolve, reject) => close(fd, (error) => (error ? reject(error) : resolve())));
}

/** The error of a close, or of one that takes longer than CLOSE_LIMIT_MS; null if it went well. */
export async function inTime(what: string, closing: Promise<void>): Promise<Error | null> {
  const late = new FusetapError('FAILED', `${what} has not returned after ${CLOSE_LIMIT_MS / 1000} s`);
  const ended = closing.then(
    () => null,
    (error: unknown) => (error instanceof Error ? error : new Error(String(error))),
  );
  return await within(ended, CLOSE_LIMIT_MS, late);
}
