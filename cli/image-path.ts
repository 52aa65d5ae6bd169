/** The path of an image in a form that the keeper can open: it has another working directory and other descriptors. */
import { isUtf8 } from 'node:buffer';
import { existsSync, realpathSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { FusetapError } from '../drivers/errors.js';
import { named } from '../drivers/quote.js';
import type { DiskSpec } from './disk-spec/index.js';

/** paths that mean something else in each process */
const OWN_FILES = /^\/(proc\/(self|thread-self)|dev\/(fd|stdin|stdout|stderr))(\/|$)/;

/**
 * The absolute path; for one of our descriptors (`/dev/fd/3`), the path of its file.
 * @param belowDev see DiskSpec
 * @throws FusetapError USAGE for a descriptor that is not of a file or block device, or whose file was removed; NOT_FOUND
 *   if there is no such file, or if its path is not UTF-8
 */
export function imagePath(path: string, belowDev?: DiskSpec['belowDev']): string {
  const isDevice = belowDev !== undefined && isBelowDev(path, belowDev);
  const absolute = isDevice ? join('/dev', path) : resolve(path);
  return OWN_FILES.test(absolute) ? pathOfDescriptor(absolute) : absolute;
}

function isBelowDev(path: string, belowDev: NonNullable<DiskSpec['belowDev']>): boolean {
  return existsSync(join('/dev', path)) && (belowDev === 'always' || !existsSync(path));
}

function pathOfDescriptor(path: string): string {
  // the keeper has other descriptors, so it must never get this path
  if (!existsSync(path)) throw noSuchImage(path);
  const stats = statSync(path);
  if (!stats.isFile() && !stats.isBlockDevice() && !stats.isDirectory()) {
    const what = stats.isFIFO() ? 'a pipe' : stats.isSocket() ? 'a socket' : 'a character device';
    throw new FusetapError('USAGE', `${named(path)} is ${what}: an image is a regular file or a block device`, {
      hint: 'write the data to a file first, for example xzcat a.img.xz > a.img, and attach that',
      path,
    });
  }
  if (stats.isFile() && stats.nlink === 0) {
    throw new FusetapError('USAGE', `the file of ${named(path)} has no name any more: it was removed`, {
      hint: 'attach a file that has a name',
      path,
    });
  }
  const file = realPathOf(path);
  if (isUtf8(file)) return file.toString();
  throw new FusetapError('NOT_FOUND', `the path of the file of ${named(path)} is not UTF-8`, {
    hint: 'give it another name that is UTF-8, for example with a symbolic link (ln -s)',
    path,
  });
}

function realPathOf(path: string): Buffer {
  try {
    return realpathSync.native(path, 'buffer');
  } catch {
    throw noSuchImage(path);
  }
}

function noSuchImage(path: string): FusetapError {
  return new FusetapError('NOT_FOUND', `${named(path)}: no such image`, { hint: 'check the path', path });
}
