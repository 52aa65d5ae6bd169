/** Checks of memory: the limit of ram images, and how many buffers can be locked. */
import { readFileSync } from 'node:fs';
import { CAP_IPC_LOCK, CAP_SYS_RESOURCE, isPrivileged } from '../../system/capabilities.js';
import { MAX_WRITE } from '../fuse/protocol/abi.js';
import { usualThreads } from '../fuse/protocol/thread-counts.js';
import { ramLimitBytes } from '../ram/limit.js';
import { type Finding, fine, lacking } from './check.js';

const MIB = 1 << 20;
/** below this limit no useful image fits */
const USEFUL_RAM_BYTES = 64 * MIB;

/** Whether the buffers of a server can be locked: else a client may get EIO if the server is killed (resident.ts). */
export function lookAtLocking(limits: string = readFileSync('/proc/self/limits', 'utf8')): Finding {
  // one buffer per thread and one for the main thread, each with headers and zeros
  const neededBytes = (usualThreads() + 2) * (MAX_WRITE + 32 * 4096);
  const soft = /^Max locked memory\s+(\S+)/m.exec(limits)?.[1] ?? '0';
  if (soft === 'unlimited' || isPrivileged(CAP_IPC_LOCK)) return fine('all buffers can be locked');
  const detail = `${Math.floor(Number(soft) / MIB)} MiB may be locked, a bus needs ${Math.ceil(neededBytes / MIB)} MiB`;
  if (Number(soft) >= neededBytes) return fine(detail);
  return lacking(
    detail,
    'ulimit -l unlimited (limits.conf: memlock); else a client may get EIO if a server crashes while memory is short',
  );
}

/** Whether the limit of ram images is high enough. */
export function lookAtRamLimit(): Finding {
  const limit = ramLimitBytes(0);
  const detail = `ram images may take ${Math.floor(limit / MIB)} MiB`;
  if (limit >= USEFUL_RAM_BYTES) return fine(detail);
  return lacking(detail, 'free memory, raise the limit of the cgroup, or set FUSETAP_RAM_LIMIT');
}

/**
 * Whether PR_SET_IO_FLUSHER is allowed: a server below a file system must not wait for write-back of that file system.
 */
export function lookAtIoFlusher(): Finding {
  if (isPrivileged(CAP_SYS_RESOURCE)) return fine('PR_SET_IO_FLUSHER is allowed');
  return lacking(
    'PR_SET_IO_FLUSHER is not allowed: write-back to a vbd is slower while too many pages are dirty',
    'run the bus with CAP_SYS_RESOURCE; needed only for a writable file system on a loop device on a vbd',
  );
}
