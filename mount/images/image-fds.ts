/**
 * Descriptors of images in a process that starts others.
 *
 * close(2) of a file on FUSE or NFS sends a request to the file system and waits. execve(2) closes descriptors marked
 * close-on-exec under a lock that readers of the process's files in /proc wait for, and the parent waits for the
 * execve. So one image whose file system hangs would block its keeper for ever, and every `ps` on the machine.
 * Therefore image descriptors are not marked close-on-exec: a child has them until it ends, and nobody waits for that
 * close. A server closes the descriptors that it inherits.
 */
import { readdirSync } from 'node:fs';
import { closeAll } from '../../drivers/close-fd.js';
import { keepOnExec, SystemCallError, shareFdFrom } from '../../system/libc.js';

/** above all numbers at which a server is given descriptors: a dup2 onto an image would close it, and wait */
const FIRST_IMAGE_FD = 64;

/** Moves an image that was opened close-on-exec to a descriptor that children inherit. @returns the new descriptor */
export async function outlastExec(fd: number): Promise<number> {
  try {
    const moved = shareFdFrom(fd, FIRST_IMAGE_FD);
    await closeAll([fd]);
    return moved;
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    // the limit of descriptors may be too low for this number
    keepOnExec(fd);
    return fd;
  }
}

/** Closes the images that the keeper had open when it started this process. Call it before anything else is opened. */
export function closeInheritedImages(): void {
  const fds = readdirSync('/proc/self/fd').map(Number);
  void closeAll(fds.filter((fd) => fd >= FIRST_IMAGE_FD));
}
