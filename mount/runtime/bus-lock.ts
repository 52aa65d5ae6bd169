/**
 * Ensures one keeper per bus: the keeper has the flock on state/NAME/lock as long as it lives, and the kernel releases
 * it when the keeper ends.
 *
 * Processes that wait for the end of a bus wait for this lock. The last keeper removes the directory with the lock
 * file, so a lock is valid only while its path still leads to it.
 */
import { closeSync, constants, fstatSync, openSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError } from '../../drivers/errors.js';
import { tryFlockExclusive } from '../../system/libc.js';
import { removeBusFiles } from './bus-files.js';
import { type BusPlace, makeBusDirectories } from './bus-place.js';
import { type SocketAddress, socketAddress } from './socket-address.js';

const LIMIT_MS = 10_000;
const POLL_MS = 10;

/**
 * Takes the lock. Waits for a keeper that is ending.
 * @returns the descriptor: the lock lasts as long as a process has it open
 * @throws FusetapError BUSY, "already running", if a keeper is there and answers
 */
export async function takeStateLock(place: BusPlace): Promise<number> {
  const deadline = Date.now() + LIMIT_MS;
  for (;;) {
    const fd = await tryLock(place);
    if (fd !== null) return fd;
    if (await answers(place.stateDir, 'control.sock')) {
      throw new FusetapError('BUSY', `already running: bus ${place.name}`);
    }
    if (await answers(place.stateDir, 'server.sock')) {
      throw new FusetapError('BUSY', `bus ${place.name} is orphaned: its keeper died`, {
        hint: `fusetap stop --bus ${place.name}, then attach again`,
      });
    }
    if (Date.now() > deadline) {
      throw new FusetapError('BUSY', `bus ${place.name} neither runs nor ends`, {
        hint: `see ${join(place.stateDir, 'log')}`,
      });
    }
    await delay(POLL_MS);
  }
}

/**
 * Takes the lock again if its file was removed, because then our lock does not keep other keepers out.
 * @returns a descriptor of the lock: the old one if it still is the lock, or if another process has the new lock
 */
export async function keepLock(place: BusPlace, fd: number): Promise<number> {
  const named = statSync(join(place.stateDir, 'lock'), { throwIfNoEntry: false });
  const { dev, ino } = fstatSync(fd);
  if (named?.ino === ino && named.dev === dev) return fd;
  return (await tryLock(place)) ?? fd;
}

async function tryLock(place: BusPlace): Promise<number | null> {
  const path = join(place.stateDir, 'lock');
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    // the previous keeper has just removed the directory
    await makeBusDirectories(place, process.geteuid?.() ?? 0);
    return null;
  }
  if (tryFlockExclusive(fd) && fstatSync(fd).ino === statSync(path, { throwIfNoEntry: false })?.ino) return fd;
  closeSync(fd);
  return null;
}

/**
 * Removes what a keeper left that died while it started: the directory of the bus, and its files but for the log. Does nothing
 * if another keeper has started.
 */
export function removeUnusedFiles(place: BusPlace): void {
  let fd: number;
  try {
    fd = openSync(join(place.stateDir, 'lock'), constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch {
    // no keeper got as far as the lock, so none has made the directory
    return;
  }
  if (tryFlockExclusive(fd)) removeBusFiles(place, { keepLog: true });
  closeSync(fd);
}

function answers(stateDir: string, name: string): Promise<boolean> {
  return new Promise((resolve) => {
    let address: SocketAddress;
    try {
      address = socketAddress(stateDir, name);
    } catch {
      return resolve(false);
    }
    const socket = connect(address.path);
    socket.on('connect', () => resolve(true));
    socket.on('error', () => resolve(false));
    socket.on('close', () => address.close());
    socket.on('connect', () => socket.destroy());
  });
}
