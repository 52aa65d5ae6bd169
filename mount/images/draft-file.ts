/**
 * A file that gets its name when it is complete. Until then it has no name (O_TMPFILE), so nothing is left if the
 * process dies. On a file system without such files (NFS, FUSE, …) it has a hidden name beside the target.
 */

import { constants, existsSync, linkSync, renameSync } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { inTime } from '../../drivers/close-fd.js';
import { builtin } from '../../system/builtin.js';
import { linkFd } from '../../system/libc.js';

// O_TMPFILE is this with O_DIRECTORY, whose value depends on the processor
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;

export class DraftFile {
  readonly file: FileHandle;
  readonly #target: string;
  /** null if it has no name */
  #name: string | null;

  private constructor(target: string, file: FileHandle, name: string | null) {
    this.#target = target;
    this.file = file;
    this.#name = name;
  }

  /** Makes an empty file with mode 0600. @throws the system's error */
  static async open(target: string): Promise<DraftFile> {
    const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
    const unnamed = await open(dirname(target), O_RDWR | O_TMPFILE, 0o600).catch(() => null);
    if (unnamed !== null) return new DraftFile(target, unnamed, null);
    const name = hiddenName(target);
    return new DraftFile(target, await open(name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600), name);
  }

  /** Gives the file its name. @throws EEXIST if a file of that name exists, even if it was made meanwhile */
  placeNew(): void {
    if (this.#name === null) return linkFd(this.file.fd, this.#target);
    try {
      linkSync(this.#name, this.#target);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // a file system without hard links
      if (code !== 'EPERM' && code !== 'EOPNOTSUPP' && code !== 'ENOSYS') throw error;
      if (existsSync(this.#target)) throw Object.assign(new Error('it exists'), { code: 'EEXIST' });
      renameSync(this.#name, this.#target);
    }
  }

  /** Replaces the file that has the name. */
  placeOver(): void {
    if (this.#name === null) {
      const name = hiddenName(this.#target);
      linkFd(this.file.fd, name);
      this.#name = name;
    }
    renameSync(this.#name, this.#target);
  }

  /** Closes the file. If it was not placed, it is gone. Never throws, because a placed file is durable already. */
  async close(): Promise<void> {
    const removed = this.#name === null ? null : await inTime('rm', rm(this.#name, { force: true }));
    if (removed !== null) console.error('a temporary file stays:', removed);
    const closed = await inTime('close', this.file.close());
    if (closed !== null) console.error(closed);
  }
}

function hiddenName(target: string): string {
  return join(dirname(target), `.${basename(target).slice(0, 200)}.${builtin.crypto.randomBytes(6).toString('hex')}`);
}
