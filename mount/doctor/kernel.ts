/** The FUSE features of this kernel, derived from its version: to be sure, one would have to mount a bus. */
import { release } from 'node:os';
import { CAP_SYS_ADMIN, isPrivileged } from '../../system/capabilities.js';
import { type Finding, fine, lacking } from './check.js';

/** MAJOR and MINOR of the running kernel. */
export function kernelVersion(text: string = release()): [major: number, minor: number] {
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(text) ?? [];
  return [Number(major ?? 0), Number(minor ?? 0)];
}

function isAtLeast(major: number, minor: number, text: string): boolean {
  const [ownMajor, ownMinor] = kernelVersion(text);
  return ownMajor > major || (ownMajor === major && ownMinor >= minor);
}

/** Linux 5.4 has FUSE 7.31, the oldest protocol that fusetap supports. */
export function lookAtKernel(text: string = release()): Finding {
  if (isAtLeast(5, 4, text)) return fine(`Linux ${text}`);
  return lacking(`the FUSE protocol of Linux ${text} is too old`, 'use Linux 5.4 or later');
}

/** Whether the kernel can send requests of a dead server again to the next server. */
export function lookAtResend(text: string = release()): Finding {
  if (isAtLeast(6, 9, text)) return fine('a server that crashes is replaced, and no request is lost');
  return lacking(`Linux ${text} cannot resend requests: if a server crashes, its bus ends`, 'use Linux 6.9 or later');
}

/** Whether the kernel can read and write images by itself. */
export function lookAtPassthrough(text: string = release(), isRoot: boolean = isPrivileged(CAP_SYS_ADMIN)): Finding {
  if (!isAtLeast(6, 9, text)) {
    return lacking(`Linux ${text} does not have it: all I/O goes through the server`, 'use Linux 6.9 or later');
  }
  if (!isRoot) return lacking('only root may use it: all I/O goes through the server', 'run the bus as root');
  return fine('ram images are read and written by the kernel itself');
}
