/**
 * Descriptors of images in a process that starts others.
 *
 * To close a file sends a request to its file system, where that is FUSE or NFS, and waits. execve(2) closes what is marked
 * close-on-exec, under a lock that all who look at the process in /proc wait for, and the one who started it waits for the
 * exec. So one image whose file system hangs would stop its keeper for good, and every `ps` of the machine. Therefore images
 * are not marked: who is started has them until it ends, where nobody waits for it. A server closes what it finds.
 */
import { readdirSync } from 'node:fs';
import { closeAll } from '../../drivers/close-fd.js';
import { keepOnExec, SystemCallError, shareFdFrom } from '../../system/libc.js';

/** above all numbers that a server is given its own under: to put one there would close an image, and wait */
const FIRST_IMAGE_FD = 64;

/** Moves an image that was opened close-on-exec to where it outlasts the start of programs. @returns its new number */
export async function outlastExec(fd: number): Promise<number> {
  try {
    const moved = shareFdFrom(fd, FIRST_IMAGE_FD);
    await closeAll([fd]);
    return moved;
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    // it may not have so many
    keepOnExec(fd);
    return fd;
  }
}

/** To be called before anything else is opened: closes the images that the keeper had open when it started this process. */
export function closeInheritedImages(): void {
  const fds = readdirSync('/proc/self/fd').map(Number);
  void closeAll(fds.filter((fd) => fd >= FIRST_IMAGE_FD));
}
