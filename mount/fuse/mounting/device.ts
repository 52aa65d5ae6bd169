/**
 * /dev/fuse, its clones, and the mount: the keeper's half of the kernel transport. unmount.ts removes the mount.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { FusetapError, toFusetapError } from '../../../drivers/errors.js';
import { CAP_SYS_ADMIN, hasCapability } from '../../../system/capabilities.js';
import {
  E,
  errnoName,
  ioctl,
  MS_NODEV,
  MS_NOSUID,
  mount,
  read,
  SystemCallError,
  shareFd,
  write,
} from '../../../system/libc.js';
import { findFusermount } from '../../../system/programs.js';
import { allocateResident } from '../../../system/resident.js';
import * as abi from '../protocol/abi.js';
import { Reply } from '../protocol/message.js';
import { type BusEnd, unmountAtEnd } from './auto-unmount.js';
import { mountByHelper } from './fusermount.js';
import { answerInit, type Negotiated } from './negotiate.js';
import { unmount } from './unmount.js';

const DEVICE = '/dev/fuse';

export interface KernelMount {
  readonly mountpoint: string;
  /** the device as mounted, then its clones; empty after they are closed */
  readonly deviceFds: number[];
  /** a helper unmounts when no process has this open any more; null if there is no helper */
  aliveFd: number | null;
  readonly negotiated: Negotiated;
}

export interface MountOptions {
  /** how many descriptors the server gets */
  readonly devices: number;
  /** whether other users, root included, may use the bus; file modes decide what they may do */
  readonly allowOther: boolean;
  readonly end: BusEnd;
}

/**
 * Opens the device (close-on-exec: a stray copy of the descriptor would make the clients of a dead bus wait for ever).
 */
function openDevice(): number {
  try {
    return openSync(DEVICE, constants.O_RDWR);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const hint =
      code === 'ENOENT' || code === 'ENODEV'
        ? 'load the kernel module: modprobe fuse; in a container, pass the device in, as docker run --device /dev/fuse'
        : `ask for access to ${DEVICE}; distributions have it as mode 0666`;
    throw toFusetapError(error, `cannot open ${DEVICE}`, { hint, path: DEVICE });
  }
}

/**
 * Mounts a bus on a directory and negotiates the protocol. Uses mount(2), or fusermount3 when unprivileged.
 * @throws FusetapError DENIED if mounting is refused, UNSUPPORTED if the kernel is too old
 */
export async function mountKernel(mountpoint: string, options: MountOptions): Promise<KernelMount> {
  const { deviceFd, aliveFd } = await mountDevice(mountpoint, options);
  const deviceFds = [deviceFd];
  try {
    const negotiated = negotiate(deviceFd);
    addClones(deviceFds, options.devices);
    return { mountpoint, deviceFds, aliveFd, negotiated };
  } catch (error) {
    for (const fd of deviceFds) closeSync(fd);
    await unmount(mountpoint);
    if (aliveFd !== null) closeSync(aliveFd);
    throw error;
  }
}

async function mountDevice(
  mountpoint: string,
  { allowOther, end }: MountOptions,
): Promise<{ deviceFd: number; aliveFd: number | null }> {
  const options = ['default_permissions', `max_read=${abi.MAX_READ}`, ...(allowOther ? ['allow_other'] : [])];
  const deviceFd = hasCapability(CAP_SYS_ADMIN) ? mountBySystemCall(mountpoint, options) : null;
  if (deviceFd !== null) return { deviceFd, aliveFd: null };
  const helper = findFusermount();
  if (helper === null) throw noHelper(mountpoint);
  const helped = await mountByHelper(helper, mountpoint, ['fsname=fusetap', 'subtype=fusetap', ...options]);
  return { deviceFd: helped, aliveFd: unmountAtEnd(mountpoint, helper, end) };
}

function noHelper(path: string): FusetapError {
  if (process.geteuid?.() === 0) {
    return new FusetapError('DENIED', `cannot mount a bus on ${path}: root without CAP_SYS_ADMIN may not mount`, {
      hint: 'in a container, add the capability SYS_ADMIN',
      path,
    });
  }
  return new FusetapError('UNSUPPORTED', `cannot mount a bus on ${path}: fusermount3 is not installed`, {
    hint: 'apt install fuse3 (dnf install fuse3), or run it as root',
    path,
  });
}

/** @returns null if mount(2) is refused in spite of the capability (seccomp, LSM): the helper may be allowed to */
function mountBySystemCall(mountpoint: string, options: readonly string[]): number | null {
  const fd = openDevice();
  const [uid, gid] = [process.getuid?.() ?? 0, process.getgid?.() ?? 0];
  const data = [`fd=${fd}`, 'rootmode=40000', `user_id=${uid}`, `group_id=${gid}`, ...options].join(',');
  try {
    const flags = MS_NOSUID | MS_NODEV;
    mount({ source: 'fusetap', target: mountpoint, fileSystemType: 'fuse.fusetap', flags, data });
    return fd;
  } catch (error) {
    closeSync(fd);
    if (error instanceof SystemCallError && error.errno === E.EPERM) return null;
    throw toFusetapError(error, `cannot mount a bus on ${mountpoint}`, { path: mountpoint });
  }
}

/**
 * Adds clones of the first descriptor until there are `count`. If the device cannot be cloned (the helper may open it
 * and this process may not), the threads share the first: all requests then go through one queue, nothing else changes.
 */
export function addClones(deviceFds: number[], count: number, clone: (source: number) => number = cloneDevice): void {
  const first = deviceFds[0] as number;
  while (deviceFds.length < count) {
    let fd: number;
    try {
      fd = clone(first);
    } catch {
      fd = shareFd(first);
    }
    deviceFds.push(fd);
  }
}

function cloneDevice(source: number): number {
  const fd = openDevice();
  const argument = Buffer.alloc(4);
  argument.writeUInt32LE(source);
  const result = ioctl(fd, abi.FUSE_DEV_IOC_CLONE, argument);
  if (result < 0) {
    closeSync(fd);
    throw new FusetapError('FAILED', `cannot clone ${DEVICE}: ${errnoName(-result)}`, { errno: -result });
  }
  return fd;
}

/** Closes all descriptors. If no other process has one, the connection ends: programs that wait get ECONNABORTED. */
export function closeDevices({ deviceFds }: KernelMount): void {
  for (const fd of deviceFds.splice(0)) closeSync(fd);
}

/** Reads the INIT that mount(2) has queued, and answers it. */
function negotiate(fd: number): Negotiated {
  const buffer = allocateResident(abi.MAX_WRITE + 4096);
  const n = read(fd, buffer.address, buffer.bytes.length);
  if (n < 0) throw new FusetapError('FAILED', `no INIT from the kernel: ${errnoName(-n)}`, { errno: -n });
  const reply = new Reply(Buffer.from(new ArrayBuffer(4096)));
  const negotiated = answerInit(buffer.bytes.subarray(0, n), reply);
  reply.bytes.copy(buffer.bytes, 0, 0, reply.length);
  const written = write(fd, buffer.address, reply.length);
  if (written < 0) throw new FusetapError('FAILED', `INIT was refused: ${errnoName(-written)}`, { errno: -written });
  return negotiated;
}

/** Sends FUSE_NOTIFY_RESEND: the kernel queues all requests again that were read and not answered. */
export function requestResend(fd: number): void {
  const message = new Reply(Buffer.from(new ArrayBuffer(abi.OUT_HEADER_SIZE)));
  message.header(0, 0, abi.NOTIFY_RESEND, 0);
  const buffer = allocateResident(4096);
  message.bytes.copy(buffer.bytes);
  const n = write(fd, buffer.address, abi.OUT_HEADER_SIZE);
  if (n < 0) throw new FusetapError('FAILED', `FUSE_NOTIFY_RESEND was refused: ${errnoName(-n)}`, { errno: -n });
}
