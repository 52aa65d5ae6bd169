/**
 * Kernel passthrough: the kernel is given the image itself and does a client's reads and writes on it, with no userspace
 * on the way.
 *
 * It knows no offset and no size here: reads and writes go to the whole file, and only a seal keeps a write past the end
 * from growing it. So what may be passed through is decided in one place, below.
 */
import { FusetapError } from '../../../drivers/errors.js';
import { ioctl } from '../../../system/libc.js';
import * as abi from '../protocol/abi.js';

/** `auto`: memory only. `on`: also files, where the user takes what comes with it. */
export type PassthroughChoice = 'auto' | 'on' | 'off';

/** What of a disk matters here: its window, if it is one, and the file that the window is of. */
export interface PassthroughCandidate {
  readonly vdev: string;
  readonly readOnly: boolean;
  readonly window: {
    readonly kind: 'file' | 'block' | 'memory';
    readonly start: number;
    readonly size: number;
    readonly durable: boolean;
  } | null;
  /** of the file or memory that the window is of */
  readonly fileBytes: number;
}

/**
 * Why the kernel cannot be given this disk, in words that follow "because"; null where it can.
 */
export function reasonNotToPassThrough({ window, readOnly, fileBytes }: PassthroughCandidate): string | null {
  if (window === null) return 'its driver or a filter has to see each request';
  if (window.kind === 'block') return 'the kernel takes no block devices';
  if (window.start !== 0 || window.size !== fileBytes) return 'the kernel knows no offset and no size limit';
  if (window.durable && !readOnly) return 'the kernel does not make each write durable';
  return null;
}

/** Whether to try, given what the user chose. @throws FusetapError UNSUPPORTED where it was asked for and cannot be */
export function wantsPassthrough(choice: PassthroughChoice, candidate: PassthroughCandidate): boolean {
  if (choice === 'off') return false;
  if (choice === 'auto' && candidate.window?.kind !== 'memory') return false;
  const reason = reasonNotToPassThrough(candidate);
  if (reason === null) return true;
  if (choice === 'auto') return false;
  throw cannotPassThrough(candidate.vdev, reason);
}

export function cannotPassThrough(vdev: string, reason: string, errno?: number): FusetapError {
  return new FusetapError('UNSUPPORTED', `${vdev} cannot be passed through: ${reason}`, {
    hint: 'attach it with --passthrough auto or off',
    errno,
  });
}

/**
 * Registers an open file with the connection. Once per vbd, and kept until detach: the kernel compares registrations,
 * and a second id for an open node is EIO.
 * @returns the id (above 0), or −errno: EPERM without CAP_SYS_ADMIN, ELOOP where the file's own file system is stacked
 */
export function registerBacking(deviceFd: number, fd: number): number {
  const map = Buffer.alloc(16);
  map.writeInt32LE(fd);
  return ioctl(deviceFd, abi.FUSE_DEV_IOC_BACKING_OPEN, map);
}

export function unregisterBacking(deviceFd: number, id: number): void {
  const argument = Buffer.alloc(4);
  argument.writeUInt32LE(id);
  ioctl(deviceFd, abi.FUSE_DEV_IOC_BACKING_CLOSE, argument);
}
