/** The working directory of this process, which may have been deleted. Absolute paths do not need it. */
import { isAbsolute, resolve } from 'node:path';
import { FusetapError } from '../../../drivers/errors.js';

/** @throws FusetapError NOT_FOUND if it was deleted */
export function workingDirectory(): string {
  try {
    return process.cwd();
  } catch (error) {
    throw deletedDirectory(error);
  }
}

/** @throws FusetapError NOT_FOUND if the path is relative and the working directory was deleted */
export function absolutePath(path: string): string {
  return isAbsolute(path) ? resolve(path) : resolve(workingDirectory(), path);
}

/** The meaning of the error that Node throws, with the system call `uv_cwd`. */
export function deletedDirectory(cause: unknown): FusetapError {
  return new FusetapError('NOT_FOUND', 'the working directory was deleted, or cannot be entered', {
    hint: 'cd to an existing directory, or give absolute paths',
    cause,
  });
}
