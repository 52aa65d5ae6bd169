/**
 * Kernel passthrough: the kernel gets the image itself and does a client's reads and writes on it, without userspace.
 *
 * The kernel knows no offset and no size limit here: reads and writes go to the whole file, and only a seal stops a
 * write past the end from growing it. This file is the only place that decides which disks can be passed through.
 */
import { FusetapError } from '../../../drivers/errors.js';
import { ioctl } from '../../../system/libc.js';
import * as abi from '../protocol/abi.js';

/** `auto`: memory only. `on`: also files; the user accepts the consequences. */
export type PassthroughChoice = 'auto' | 'on' | 'off';

/** The facts about a disk that decide: its window, if it is one, and the file behind the window. */
export interface PassthroughCandidate {
  readonly vdev: string;
  readonly readOnly: boolean;
  readonly window: {
    readonly kind: 'file' | 'block' | 'memory';
    readonly start: number;
    readonly size: number;
    readonly durable: boolean;
  } | null;
  /** the size of the file or memory behind the window */
  readonly fileBytes: number;
}

/**
 * Why the kernel cannot get this disk, in words that follow "because"; null if it can.
 */
export function reasonNotToPassThrough({ window, readOnly, fileBytes }: PassthroughCandidate): string | null {
  if (window === null) return 'its driver or a filter has to see each request';
  if (window.kind === 'block') return 'the kernel does not accept block devices';
  if (window.start !== 0 || window.size !== fileBytes) return 'the kernel knows no offset and no size limit';
  if (window.durable && !readOnly) return 'the kernel does not make each write durable';
  return null;
}

/** Whether to try, given the user's choice. @throws FusetapError UNSUPPORTED if the choice is `on` and it cannot be */
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
 * Registers an open file with the connection. Register once for each vbd and keep it until detach: the kernel compares
 * registrations, and a second id for an open node is EIO.
 * @returns the id (above 0), or −errno: EPERM without CAP_SYS_ADMIN, ELOOP if the file's own file system is stacked
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
