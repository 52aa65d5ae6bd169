/**
 * The files of a running bus: makes its control socket, and removes its files when it ends.
 */
import { readdirSync, rmdirSync, rmSync } from 'node:fs';
import type { Server } from 'node:http';
import { join } from 'node:path';
import type { BusPlace } from './bus-place.js';
import { socketAddress } from './socket-address.js';

/** Lets a control server listen on a socket in the state directory. Only its owner can connect. */
export async function listenOn(control: Server, stateDir: string, name: string): Promise<void> {
  rmSync(join(stateDir, name), { force: true });
  const address = socketAddress(stateDir, name);
  const umask = process.umask(0o177);
  try {
    await new Promise<void>((resolve, reject) => {
      control.once('error', reject);
      control.listen(address.path, () => {
        control.off('error', reject);
        resolve();
      });
    });
  } finally {
    process.umask(umask);
    address.close();
  }
}

/**
 * Removes the files of a bus that has ended, but not a user's own directory. Files that cannot be removed stay.
 * @param options keepLog: keep the log too, which `fusetap log` prints
 */
export function removeBusFiles(place: BusPlace, { keepLog = false } = {}): void {
  attempt(place.stateDir, () => {
    const names = keepLog ? readdirSync(place.stateDir).filter((name) => name !== 'log' && name !== 'log.1') : [''];
    for (const name of names) rmSync(join(place.stateDir, name), { recursive: true, force: true });
  });
  removeMountpoint(place);
}

/**
 * Removes the directory of a bus that is not mounted any more, so that a program that writes to a vbd gets an error and
 * does not create a file of that name. A user's own directory stays, and so does a directory on which a bus is mounted.
 */
export function removeMountpoint({ path, ownDirectory }: BusPlace): void {
  if (!ownDirectory) attempt(path, () => rmdirSync(path));
}

/** Removes the socket, so that nobody can connect any more. */
export function removeSocket({ stateDir }: BusPlace, name: 'control.sock' | 'server.sock'): void {
  attempt(name, () => rmSync(join(stateDir, name), { force: true }));
}

function attempt(what: string, remove: () => void): void {
  try {
    remove();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    // it is gone already, or another bus is mounted there
    if (code !== 'ENOENT' && code !== 'EBUSY') console.error(`cannot remove ${what}: ${message}`);
  }
}
