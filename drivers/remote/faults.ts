/** What drivers of disks on a network have in common about errors. */
import { readFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { FusetapError } from '../errors.js';
import { named } from '../quote.js';

/** @param why a clause */
export function inputOutputError(why: string, cause?: unknown): FusetapError {
  return new FusetapError('FAILED', why, { errno: constants.errno.EIO, cause });
}

export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // several addresses of a host were tried
  const { errors } = error as { errors?: readonly unknown[] };
  return error.message !== '' || errors === undefined ? error.message : errors.map(reasonOf).join(', ');
}

/**
 * Reads a file that the user has named: a certificate, a key, headers.
 * @throws FusetapError DENIED, NOT_FOUND
 */
export async function readNamedFile(path: string, hint?: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code === 'EACCES' ? 'DENIED' : 'NOT_FOUND';
    throw new FusetapError(code, `${named(path)} cannot be read: ${reasonOf(error)}`, { hint, cause: error });
  }
}
