/**
 * Keeps a vbd attached, and other mounts of it away, while this process works with it: an open handle, with a lock that
 * the kernel releases if this process dies.
 */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { tryFlockExclusive } from '../../system/libc.js';
import { within } from '../../system/within.js';
import { QUIET_MS, type TellWait } from './tools/run-tool.js';

const POLL_MS = 50;

export class Pin {
  readonly file: FileHandle;

  private constructor(file: FileHandle) {
    this.file = file;
  }

  /** Opens the file of a vbd. @returns null if it is gone, or is being detached */
  static async open(path: string): Promise<Pin | null> {
    try {
      return new Pin(await open(path, constants.O_RDONLY | constants.O_NOFOLLOW));
    } catch (error) {
      if (GONE.has((error as NodeJS.ErrnoException).code ?? '')) return null;
      throw error;
    }
  }

  /** The same, but gives up after some time. @returns null also if it cannot be opened */
  static async tryOpen(path: string, limitMs: number): Promise<Pin | null> {
    const opening = Pin.open(path).catch(() => null);
    const pin = await within(opening, limitMs, null);
    if (pin === null) void opening.then((late) => late?.close());
    return pin;
  }

  /** Waits until no other process has the lock. */
  async lock(what: string, waits: TellWait | undefined): Promise<void> {
    const begun = performance.now();
    let isTold = false;
    while (!tryFlockExclusive(this.file.fd)) {
      if (!isTold && performance.now() - begun > QUIET_MS) {
        isTold = true;
        waits?.(`waiting for another fusetap mount of ${what}`);
      }
      await delay(POLL_MS);
    }
  }

  /** Lets go of the vbd, and of the lock. It may be called again. */
  async close(): Promise<void> {
    await this.file.close().catch(() => {});
  }
}

const GONE: ReadonlySet<string> = new Set(['ENOENT', 'ENOTCONN', 'ECONNABORTED', 'ESTALE', 'ENOTDIR']);
