/** Memory: how much ram images may take, and how much of the buffers stays where it is. */
import { readFileSync } from 'node:fs';
import { CAP_IPC_LOCK, CAP_SYS_RESOURCE, isPrivileged } from '../../system/capabilities.js';
import { MAX_WRITE } from '../fuse/protocol/abi.js';
import { usualThreads } from '../fuse/protocol/thread-counts.js';
import { ramLimitBytes } from '../ram/limit.js';
import { type Finding, fine, lacking } from './check.js';

const MIB = 1 << 20;
/** below it, no image of any use fits */
const USEFUL_RAM_BYTES = 64 * MIB;

/** Whether the buffers of a server can be locked: a kill that meets one that is not resident costs a client an EIO. */
export function lookAtLocking(limits: string = readFileSync('/proc/self/limits', 'utf8')): Finding {
  // a buffer a thread and one for the main thread, each with its headers and a page of zeros
  const neededBytes = (usualThreads() + 1) * (MAX_WRITE + 32 * 4096);
  const soft = /^Max locked memory\s+(\S+)/m.exec(limits)?.[1] ?? '0';
  if (soft === 'unlimited' || isPrivileged(CAP_IPC_LOCK)) return fine('all buffers can be locked');
  const detail = `${Math.floor(Number(soft) / MIB)} MiB may be locked, a bus has ${Math.ceil(neededBytes / MIB)}`;
  if (Number(soft) >= neededBytes) return fine(detail);
  return lacking(
    detail,
    'ulimit -l unlimited (limits.conf: memlock), or a crash under memory pressure may cost a client an EIO',
  );
}

/** How much ram images may take. */
export function lookAtRamLimit(): Finding {
  const limit = ramLimitBytes(0);
  const detail = `ram images may take ${Math.floor(limit / MIB)} MiB`;
  if (limit >= USEFUL_RAM_BYTES) return fine(detail);
  return lacking(detail, 'free memory, raise the limit of the cgroup, or set FUSETAP_RAM_LIMIT');
}

/** PR_SET_IO_FLUSHER: a server below a file system that is written back must not wait for that. */
export function lookAtIoFlusher(): Finding {
  if (isPrivileged(CAP_SYS_RESOURCE)) return fine('PR_SET_IO_FLUSHER is allowed');
  return lacking(
    'PR_SET_IO_FLUSHER is not allowed: while too much is dirty, write-back to a vbd is slower',
    'run the bus with CAP_SYS_RESOURCE; matters only with a writable file system on a loop device on a vbd',
  );
}
