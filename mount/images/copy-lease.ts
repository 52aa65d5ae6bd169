/**
 * Which process may write an image past the lock of its file (mapped-write.ts): one, and only while no other may write the
 * image at all. All of it is locks of open file descriptions on the image's inode, which end with their process.
 *
 *      byte 302   the image is attached with mode w! (mount/images/claim-image.ts)
 *      byte 304   a server copies to where the image is mapped: its lease
 *      byte 1000 + pid of a keeper   its bus may write this memory (ram), by threads or by the kernel
 *
 *      a server:   takes 304, then looks for 302 and other keepers, now and every LEASE_LOOK_MS while it has the lease
 *      a keeper:   takes 302 or its own byte, then waits until nobody has 304, and only then lets its clients write
 *
 * Each takes first and looks then, so one of the two sees the other. A lease is on an open file of its own, because it has
 * to end when the server does, and the keeper may share the other one.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { isRangeLocked, lockRangeShared, SystemCallError } from '../../system/libc.js';
import { until } from '../../system/until.js';

export const SHARED_WRITER_BYTE = 302;
export const LEASE_BYTE = 304;
const FIRST_KEEPER_BYTE = 1000;
/** the kernel has no larger pid */
const MAX_PID = 1 << 22;

/** how long a server goes on with its lease after another writer came */
export const LEASE_LOOK_MS = 50;
const POLL_MS = 5;

/** A server's right to copy. */
export class CopyLease {
  readonly #own: number;

  private constructor(own: number) {
    this.#own = own;
  }

  /** @returns null where there is another writer, or it cannot be known */
  static take(fd: number, keeperPid: number): CopyLease | null {
    let lease: CopyLease;
    try {
      lease = new CopyLease(openSync(`/proc/self/fd/${fd}`, constants.O_RDONLY | constants.O_NONBLOCK));
    } catch {
      // it may be read by fewer than when it was attached
      return null;
    }
    if (lease.#lock() && !isWrittenByOthers(fd, keeperPid)) return lease;
    lease.release();
    return null;
  }

  #lock(): boolean {
    try {
      return lockRangeShared(this.#own, LEASE_BYTE, 1);
    } catch (error) {
      if (error instanceof SystemCallError) return false;
      throw error;
    }
  }

  release(): void {
    closeSync(this.#own);
  }
}

/** Whether another keeper than this lets its clients write the image. */
export function isWrittenByOthers(fd: number, keeperPid: number): boolean {
  const own = FIRST_KEEPER_BYTE + keeperPid;
  return (
    isRangeLocked(fd, SHARED_WRITER_BYTE, 1) ||
    isRangeLocked(fd, FIRST_KEEPER_BYTE, keeperPid) ||
    isRangeLocked(fd, own + 1, MAX_PID - keeperPid)
  );
}

/**
 * Says that the clients of a keeper may write a memory: it does, and its server, which may live longer. It ends when the
 * last descriptor of the open file is closed.
 */
export function markWriter(fd: number, keeperPid: number): void {
  lockRangeShared(fd, FIRST_KEEPER_BYTE + keeperPid, 1);
}

/**
 * Waits until no server copies. To be called after one's own mark was set.
 * @returns false where one still did when the time was over: it is stopped
 */
export function awaitNoCopies(fd: number, patienceMs: number): Promise<boolean> {
  return until(() => !isRangeLocked(fd, LEASE_BYTE, 1), { timeoutMs: patienceMs, everyMs: POLL_MS });
}
