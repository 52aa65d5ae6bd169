/**
 * Decides which process may write an image without the lock of its file (mapped-write.ts): only one process, and only
 * while no other process may write the image at all. It uses locks of open file descriptions on the image's inode,
 * which end with their process.
 *
 *      byte 302   the image is attached with mode w! (mount/images/claim-image.ts)
 *      byte 304   the lease: a server copies into the mapped image
 *      byte 305   the ram image is the base of another disk, which nobody may write (markBase)
 *      byte 1000 + pid of a keeper   its bus may write this ram image, by threads or by the kernel
 *
 *      a server:   locks 304, then checks 302 and other keepers, at once and every LEASE_LOOK_MS while it has the lease
 *      a keeper:   locks 302 or its own byte, then waits until nobody has 304, and only then lets its clients write
 *
 * Each locks first and checks then, so at least one of the two sees the other. The lease is on an open file description
 * of its own: it must end with the server, and the keeper may share the other one.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { isRangeLocked, lockRangeShared, SystemCallError, unlockRange } from '../../system/libc.js';
import { until } from '../../system/until.js';

export const SHARED_WRITER_BYTE = 302;
export const LEASE_BYTE = 304;
const BASE_BYTE = 305;
const FIRST_KEEPER_BYTE = 1000;
/** the kernel has no larger pid */
const MAX_PID = 1 << 22;

/** how long a server may keep its lease after another writer came */
export const LEASE_LOOK_MS = 50;
const POLL_MS = 5;

/** The right of a server to copy into the mapped image. */
export class CopyLease {
  readonly #own: number;

  private constructor(own: number) {
    this.#own = own;
  }

  /** @returns null if there is another writer, or if it cannot be found out */
  static take(fd: number, keeperPid: number): CopyLease | null {
    let lease: CopyLease;
    try {
      lease = new CopyLease(openSync(`/proc/self/fd/${fd}`, constants.O_RDONLY | constants.O_NONBLOCK));
    } catch {
      // the permissions of the image may have changed since the attach
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
 * Marks that the clients of a keeper may write a ram image. The keeper calls it, and its server, which may live longer.
 * The mark ends when the last descriptor of the open file description is closed.
 */
export function markWriter(fd: number, keeperPid: number): void {
  lockRangeShared(fd, FIRST_KEEPER_BYTE + keeperPid, 1);
}

/**
 * Waits until no server copies. Call it after setting its own mark.
 * @returns false if a server still copies after `patienceMs`: it is stopped
 */
export function awaitNoCopies(fd: number, patienceMs: number): Promise<boolean> {
  return until(() => !isRangeLocked(fd, LEASE_BYTE, 1), { timeoutMs: patienceMs, everyMs: POLL_MS });
}

/** Takes the mark of markWriter back, if no client was allowed to write. */
export function unmarkWriter(fd: number, keeperPid: number): void {
  unlockRange(fd, FIRST_KEEPER_BYTE + keeperPid, 1);
}

/** Marks that a ram image is the base of another disk: no keeper lets clients write it then. As markWriter. */
export function markBase(fd: number): void {
  lockRangeShared(fd, BASE_BYTE, 1);
}

export function unmarkBase(fd: number): void {
  unlockRange(fd, BASE_BYTE, 1);
}

/** Whether the ram image is the base of a disk of another keeper. */
export function isBaseElsewhere(fd: number): boolean {
  return isRangeLocked(fd, BASE_BYTE, 1);
}
