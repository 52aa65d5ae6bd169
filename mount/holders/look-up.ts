/**
 * Asks for a file of the bus in a process of its own, because keeper and server must not wait for the mount that they
 * serve.
 */
import { execFile } from 'node:child_process';

const TIMEOUT_MS = 1000;

/** The inode number that stat(2) gives for a path; null if the path is not there or stat takes too long. */
export function lookUpInode(path: string): Promise<number | null> {
  return new Promise((resolve) => {
    execFile('stat', ['-c', '%i', '--', path], { timeout: TIMEOUT_MS, killSignal: 'SIGKILL' }, (error, stdout) => {
      const inode = Number.parseInt(stdout, 10);
      resolve(error === null && Number.isSafeInteger(inode) ? inode : null);
    });
  });
}
