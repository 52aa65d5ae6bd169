/**
 * Descriptors on their way from keeper to server, beside the commands that need them.
 *
 *      keeper ── message: number of the command, its descriptors (SCM_RIGHTS) ──► server      a socket of their own
 *             ── Command {id, …} ──────────────────────────────────────────────►              the channel of Node
 *
 * The message goes first, the command right behind it, and neither side ever waits: so when the server reads a command, its
 * descriptors are there. What lies before them belongs to commands that never came, and is closed. A descriptor passed on
 * is the same open file: nobody is asked for permission again, no name is looked up, and the locks are shared.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { closeAll } from '../../drivers/close-fd.js';
import { FusetapError } from '../../drivers/errors.js';
import { E, errnoName, lseek, receiveFds, sendFds } from '../../system/libc.js';
import type { Command } from './commands.js';

/** an image and a memory are the most that a command needs */
const MAX_FDS = 4;
const NUMBER_BYTES = 4;
const SEEK_SET = 0;
const { O_RDONLY, O_RDWR } = constants;

/** The descriptors of the keeper that a command needs, by the numbers they have there. */
export function neededFds(command: Command): number[] {
  switch (command.op) {
    case 'attach':
      return command.broken === undefined ? numbers(command.image?.fd, command.memoryFd) : [];
    case 'measure':
      return numbers(command.image?.fd);
    case 'prepare':
      return numbers(command.image?.fd, command.memoryFd);
    case 'swap':
      return neededFds(command.attach);
    case 'save':
      return [command.targetFd];
    default:
      return [];
  }
}

function numbers(...fds: (number | null | undefined)[]): number[] {
  return fds.filter((fd) => fd !== null && fd !== undefined);
}

/**
 * Sends what a command needs.
 * @param socket of a pair that keeps messages
 * @returns false where there is no room at the moment: a server that is stopped reads nothing
 * @throws FusetapError FAILED where a descriptor cannot be sent at all
 */
export function passFds(socket: number, id: number, fds: readonly number[]): boolean {
  const data = Buffer.alloc(NUMBER_BYTES * (1 + fds.length));
  for (const [i, number] of [id, ...fds].entries()) data.writeInt32LE(number, NUMBER_BYTES * i);
  const errno = -sendFds(socket, data, fds);
  if (errno === 0) return true;
  if (errno === E.EAGAIN || errno === ETOOMANYREFS || errno === E.ENOBUFS || errno === E.ENOMEM) return false;
  throw new FusetapError('FAILED', `a descriptor cannot be given to the server: ${errnoName(errno)}`, { errno });
}
/** more descriptors are under way than this user may have open; node:os does not know it */
const ETOOMANYREFS = 109;

/** The descriptors for one command. Whoever takes one closes it; `end` closes the rest. */
export interface PassedFds {
  /** they are the same open files as the keeper's, so its locks hold for as long as any of them is open */
  readonly areShared: boolean;
  /**
   * @param fd the number that it has in the keeper
   * @throws FusetapError FAILED where it did not come
   */
  take(fd: number, readOnly: boolean): number;
  end(): void;
}

/** Takes what came for a command that has just been read. To be called once for each that needs descriptors. */
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
      // the position is the open file's: a driver of an earlier server may have moved it
      lseek(fd, 0, SEEK_SET);
      return fd;
    },
    end: () => {
      void closeAll([...own.values()]);
      own.clear();
    },
  };
}

/** What a keeper has open that passes nothing on: one that was started before this was installed, and upgrades to it. */
export function fdsOfKeeper(keeperPid: number): PassedFds {
  return {
    areShared: false,
    take: (fd, readOnly) => openSync(`/proc/${keeperPid}/fd/${fd}`, readOnly ? O_RDONLY : O_RDWR),
    end: () => {},
  };
}

/**
 * The same memory, opened for reading only: a driver, or a fault in it, can then not write what the user wants to be left
 * alone. A memfd is no file of anybody's: to open it again asks for no permission, and does not wait.
 */
export function asReadOnly(memoryFd: number): number {
  let fd: number;
  try {
    fd = openSync(`/proc/self/fd/${memoryFd}`, O_RDONLY);
  } catch {
    // no descriptor left, or no /proc: it is read all the same
    return memoryFd;
  }
  closeSync(memoryFd);
  return fd;
}
