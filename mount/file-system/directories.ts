/** The directories on which images are mounted. */
import { mkdirSync, realpathSync, rmdirSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { FusetapError, toFusetapError } from '../../drivers/errors.js';

/** Makes a directory. @returns false if it was there already */
export function makeDirectory(directory: string): boolean {
  try {
    mkdirSync(directory);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw toFusetapError(error, `cannot make ${directory}`, { path: directory });
  }
}

/** Removes a directory if it is empty. */
export function removeDirectory(directory: string): void {
  try {
    rmdirSync(directory);
  } catch {
    // it has files, or is gone
  }
}

/** The real path. @throws FusetapError NOT_FOUND, USAGE if it is not a directory */
export function realDirectory(directory: string): string {
  const cannot = `cannot mount on ${directory}`;
  const path = resolve(directory);
  try {
    const real = realpathSync(path);
    if (statSync(real).isDirectory()) return real;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const hint = code === 'ENOENT' ? `mkdir -p ${directory}` : undefined;
    throw toFusetapError(error, `${cannot}: ${code}`, { hint, path: directory });
  }
  throw new FusetapError('USAGE', `${cannot}: it is not a directory`, { path: directory });
}

/** The real path of a mount point, found without a call on the mount itself: its server may be dead. */
export function realMountpoint(directory: string): string {
  const path = resolve(directory);
  try {
    return path === '/' ? path : join(realpathSync(dirname(path)), basename(path));
  } catch {
    return path;
  }
}
