/**
 * /dev/fuse, its clones, and the mount: the keeper's half of the kernel transport.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { FusetapError, toFusetapError } from '../../drivers/errors.js';
import {
  E,
  errnoName,
  ioctl,
  MNT_DETACH,
  MNT_FORCE,
  MS_NODEV,
  MS_NOSUID,
  mount,
  read,
  umount2,
  write,
} from '../../system/libc.js';
import * as abi from './abi.js';
import { Reply } from './message.js';
import { answerInit, type Negotiated } from './negotiate.js';
import { allocateResident } from './resident.js';

const DEVICE = '/dev/fuse';

/**
 * A larger read comes as several requests of this size, which threads serve side by side, and whose bytes are still in
 * the processor's cache when they are copied on: 1 MiB reads at queue depth 4 took 0.8 of the time of whole ones.
 */
const MAX_READ = 256 << 10;

export interface KernelMount {
  readonly mountpoint: string;
  /** the device as mounted, then its clones */
  readonly deviceFds: readonly number[];
  readonly negotiated: Negotiated;
}

/** Opens the device (close-on-exec: a stray copy of the descriptor would keep a dead bus's clients waiting). */
function openDevice(): number {
  try {
    return openSync(DEVICE, constants.O_RDWR);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const hint =
      code === 'ENOENT' || code === 'ENODEV'
        ? 'load the kernel module: modprobe fuse'
        : `ask for access to ${DEVICE}; distributions have it as mode 0666`;
    throw toFusetapError(error, `cannot open ${DEVICE}`, { hint, path: DEVICE });
  }
}

/**
 * Mounts a bus on a directory and agrees with the kernel on how to speak.
 * @param threads how many descriptors the server is to have
 * @throws FusetapError DENIED where mount(2) is refused, UNSUPPORTED where the kernel is too old
 */
export function mountKernel(mountpoint: string, threads: number): KernelMount {
  const first = openDevice();
  const deviceFds = [first];
  let mounted = false;
  try {
    const uid = process.getuid?.() ?? 0;
    const gid = process.getgid?.() ?? 0;
    const data = `fd=${first},rootmode=40000,user_id=${uid},group_id=${gid},default_permissions,max_read=${MAX_READ}`;
    try {
      mount('fusetap', mountpoint, 'fuse.fusetap', MS_NOSUID | MS_NODEV, data);
    } catch (error) {
      throw toFusetapError(error, `cannot mount a bus on ${mountpoint}`, {
        hint: (error as { errno?: number }).errno === E.EPERM ? 'run it as root' : undefined,
        path: mountpoint,
      });
    }
    mounted = true;
    const negotiated = negotiate(first);
    while (deviceFds.length < threads) deviceFds.push(cloneDevice(first));
    return { mountpoint, deviceFds, negotiated };
  } catch (error) {
    if (mounted) umount2(mountpoint, MNT_DETACH);
    for (const fd of deviceFds) closeSync(fd);
    throw error;
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

/** Reads INIT, which mount(2) has queued, and answers it. */
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

/**
 * Takes the mount away, also from under somebody's working directory.
 * @param force abort the connection first: whoever waits gets ECONNABORTED, and whoever comes ENOTCONN
 */
export function unmountKernel(mountpoint: string, force: boolean): void {
  // never a second call once one has succeeded: it would take away what the bus was mounted over
  if (force && umount2(mountpoint, MNT_FORCE) === 0) return;
  if (umount2(mountpoint, 0) === -E.EBUSY) umount2(mountpoint, MNT_DETACH);
}

/** Sends FUSE_NOTIFY_RESEND: all requests that were read and not answered are queued again. */
export function requestResend(fd: number): void {
  const message = new Reply(Buffer.from(new ArrayBuffer(abi.OUT_HEADER_SIZE)));
  message.header(0, 0, abi.NOTIFY_RESEND, 0);
  const buffer = allocateResident(4096);
  message.bytes.copy(buffer.bytes);
  const n = write(fd, buffer.address, abi.OUT_HEADER_SIZE);
  if (n < 0) throw new FusetapError('FAILED', `FUSE_NOTIFY_RESEND was refused: ${errnoName(-n)}`, { errno: -n });
}
