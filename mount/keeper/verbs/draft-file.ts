/**
 * A file that comes to have its name when it is whole. Until then it has none, so that nothing of it is left where its
 * maker dies; on a file system that has no such files (NFS, FUSE, …) it has a hidden name beside the target.
 */
import { randomBytes } from 'node:crypto';
import { constants, existsSync, linkSync, renameSync } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { inTime } from '../../../drivers/close-fd.js';
import { linkFd } from '../../../system/libc.js';

// O_TMPFILE is this with O_DIRECTORY, whose value depends on the processor
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;

export class DraftFile {
  readonly file: FileHandle;
  readonly #target: string;
  /** null where it has none */
  #name: string | null;

  private constructor(target: string, file: FileHandle, name: string | null) {
    this.#target = target;
    this.file = file;
    this.#name = name;
  }

  /** An empty file, for its owner only. @throws the error of the system */
  static async open(target: string): Promise<DraftFile> {
    const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
    const unnamed = await open(dirname(target), O_RDWR | O_TMPFILE, 0o600).catch(() => null);
    if (unnamed !== null) return new DraftFile(target, unnamed, null);
    const name = hiddenName(target);
    return new DraftFile(target, await open(name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600), name);
  }

  /** Gives it its name. @throws EEXIST where a file of that name is there, whenever it was made */
  placeNew(): void {
    if (this.#name === null) return linkFd(this.file.fd, this.#target);
    try {
      linkSync(this.#name, this.#target);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // a file system without hard links
      if (code !== 'EPERM' && code !== 'EOPNOTSUPP' && code !== 'ENOSYS') throw error;
      if (existsSync(this.#target)) throw Object.assign(new Error('it is there'), { code: 'EEXIST' });
      renameSync(this.#name, this.#target);
    }
  }

  /** Puts it in the place of the file of its name. */
  placeOver(): void {
    if (this.#name === null) {
      const name = hiddenName(this.#target);
      linkFd(this.file.fd, name);
      this.#name = name;
    }
    renameSync(this.#name, this.#target);
  }

  /** Closes it; what was not placed is gone. Never throws: what was placed is durable. */
  async close(): Promise<void> {
    const removed = this.#name === null ? null : await inTime('rm', rm(this.#name, { force: true }));
    if (removed !== null) console.error('a temporary file stays:', removed);
    const closed = await inTime('close', this.file.close());
    if (closed !== null) console.error(closed);
  }
}

function hiddenName(target: string): string {
  return join(dirname(target), `.${basename(target).slice(0, 200)}.${randomBytes(6).toString('hex')}`);
}
