/** What of FUSE this kernel has, told from its version: to know for sure a bus would have to be mounted. */
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

/** Linux 5.4 speaks FUSE 7.31, the oldest that fusetap can do with. */
export function lookAtKernel(text: string = release()): Finding {
  if (isAtLeast(5, 4, text)) return fine(`Linux ${text}`);
  return lacking(`Linux ${text} speaks too old a FUSE`, 'use Linux 5.4 or later');
}

/** Requests that a dead server had read come again to the next. */
export function lookAtResend(text: string = release()): Finding {
  if (isAtLeast(6, 9, text)) return fine('a server that dies is replaced, no request is lost');
  return lacking(`Linux ${text} cannot send requests again: a bus ends with its server`, 'use Linux 6.9 or later');
}

/** The kernel reads and writes the image by itself. */
export function lookAtPassthrough(text: string = release(), isRoot: boolean = isPrivileged(CAP_SYS_ADMIN)): Finding {
  if (!isAtLeast(6, 9, text)) {
    return lacking(`Linux ${text} has none: all I/O goes through the server`, 'use Linux 6.9 or later');
  }
  if (!isRoot) return lacking('only root may have it: all I/O goes through the server', 'run the bus as root');
  return fine('ram images are read and written by the kernel itself');
}
