/**
 * Sends descriptors from keeper to server, beside the commands that need them.
 *
 *      keeper ── message: number of the command, its descriptors (SCM_RIGHTS) ──► server      a socket of their own
 *             ── Command {id, …} ──────────────────────────────────────────────►              the channel of Node
 *
 * The message is sent first, then the command, and neither side ever waits. So when the server reads a command, its
 * descriptors have arrived. Messages before them belong to commands that were never sent; their descriptors are closed.
 * A passed descriptor refers to the same open file description: permission is not checked again, no name is looked up,
 * and the locks are shared.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { closeAll } from '../../drivers/close-fd.js';
import { FusetapError } from '../../drivers/errors.js';
import { E, errnoName, lseek, receiveFds, sendFds } from '../../system/libc.js';
import type { Command, GraphRef } from './commands.js';

/** the kernel sends at most 253 in one message */
const MAX_FDS = 252;
const NUMBER_BYTES = 4;
const SEEK_SET = 0;
const { O_RDONLY, O_RDWR } = constants;

/** The descriptors that a command needs, by their numbers in the keeper. */
export function neededFds(command: Command): number[] {
  switch (command.op) {
    case 'attach':
      return command.broken === undefined ? fdsOf(command.disk) : [];
    case 'needs':
    case 'measure':
    case 'repair':
      return fdsOf(command.disk);
    case 'prepare':
      return [...fdsOf(command.disk), command.memoryFd];
    case 'swap':
    case 'sizeOf':
    case 'copyTo':
    case 'hasData':
    case 'resize':
      return neededFds(command.attach);
    case 'save':
      return [command.targetFd];
    default:
      return [];
  }
}

/** Each once: two parts of a disk may be in one file. */
function fdsOf({ files, memories, kept }: GraphRef): number[] {
  const ofKept = Object.values(kept?.nodes ?? {}).flatMap(({ fds }) => fds);
  const ofClaim = kept === undefined ? [] : [kept.claim.fd];
  const opened = [...Object.values(files), ...Object.values(memories)].map(({ fd }) => fd);
  return [...new Set([...opened, ...ofKept, ...ofClaim])];
}

/**
 * Sends the descriptors of a command.
 * @param socket one end of a pair that keeps message boundaries
 * @returns false if the socket has no room now: a stopped server reads nothing
 * @throws FusetapError FAILED if a descriptor cannot be sent at all
 */
export function passFds(socket: number, id: number, fds: readonly number[]): boolean {
  const data = Buffer.alloc(NUMBER_BYTES * (1 + fds.length));
  for (const [i, number] of [id, ...fds].entries()) data.writeInt32LE(number, NUMBER_BYTES * i);
  const errno = -sendFds(socket, data, fds);
  // the server has died: what it was to do is rejected when its exit is reported
  if (errno === 0 || errno === E.EPIPE || errno === E.ECONNRESET) return true;
  if (errno === E.EAGAIN || errno === ETOOMANYREFS || errno === E.ENOBUFS || errno === E.ENOMEM) return false;
  throw new FusetapError('FAILED', `a descriptor cannot be sent to the server: ${errnoName(errno)}`, { errno });
}
/** more descriptors are in flight than this user may have open; node:os does not have this errno */
const ETOOMANYREFS = 109;

/**
 * Receives the descriptors of a `keep` message that has just been read, in the order in which they were sent.
 * @throws FusetapError FAILED if they did not arrive
 */
export function takeKept(socket: number, number: number): number[] {
  for (;;) {
    const message = receiveFds(socket, NUMBER_BYTES * (1 + MAX_FDS), MAX_FDS);
    if (message === null) throw new FusetapError('FAILED', 'the server has sent no descriptors to keep');
    const { data, fds, isCut } = message;
    if (data.readInt32LE(0) === number && !isCut) return [...fds];
    void closeAll(fds);
    if (isCut) throw new FusetapError('FAILED', 'the keeper has too many files open (EMFILE)');
  }
}

/** The descriptors of one command. The caller of `take` closes what it took; `end` closes the rest. */
export interface PassedFds {
  /** whether they share the keeper's open file descriptions: its locks last until all of them are closed */
  readonly areShared: boolean;
  /**
   * @param fd its number in the keeper
   * @throws FusetapError FAILED if it did not arrive
   */
  take(fd: number, readOnly: boolean): number;
  end(): void;
}

/** Receives the descriptors of a command that has just been read. To be called once for each command that needs any. */
export function takePassed(socket: number, id: number): PassedFds {
  for (;;) {
    const message = receiveFds(socket, NUMBER_BYTES * (1 + MAX_FDS), MAX_FDS);
    if (message === null) return passedFds(new Map(), 'it was not sent');
    const { data, fds, isCut } = message;
    if (data.readInt32LE(0) !== id) {
      void closeAll(fds);
      continue;
    }
    const own = new Map(fds.map((fd, i) => [data.readInt32LE(NUMBER_BYTES * (1 + i)), fd]));
    return passedFds(own, isCut ? 'this process has too many files open (EMFILE)' : 'it was not sent');
  }
}

function passedFds(own: Map<number, number>, whyNot: string): PassedFds {
  return {
    areShared: true,
    take: (number) => {
      const fd = own.get(number);
      if (fd === undefined) throw new FusetapError('FAILED', `the server has no descriptor of the image: ${whyNot}`);
      own.delete(number);
      // the position belongs to the open file description: a driver of an earlier server may have moved it
      lseek(fd, 0, SEEK_SET);
      return fd;
    },
    end: () => {
      void closeAll([...own.values()]);
      own.clear();
    },
  };
}

/** Opens the descriptors of an older keeper, which sends none, through /proc: after an upgrade to this version. */
export function fdsOfKeeper(keeperPid: number): PassedFds {
  return {
    areShared: false,
    take: (fd, readOnly) => openSync(`/proc/${keeperPid}/fd/${fd}`, readOnly ? O_RDONLY : O_RDWR),
    end: () => {},
  };
}

/**
 * Opens the same memory again for reading only, so that a driver, or a bug in it, cannot write to a read-only vbd.
 * Opening a memfd again needs no permission and does not wait.
 */
export function asReadOnly(memoryFd: number): number {
  let fd: number;
  try {
    fd = openSync(`/proc/self/fd/${memoryFd}`, O_RDONLY);
  } catch {
    // no descriptor left, or no /proc: the given descriptor can be read as well
    return memoryFd;
  }
  closeSync(memoryFd);
  return fd;
}
