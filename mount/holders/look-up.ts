/**
 * Asks for a file of the bus as any program would, in a process of its own: neither keeper nor server may wait for the
 * mount that they serve.
 */
import { execFile } from 'node:child_process';

const TIMEOUT_MS = 1000;

/** The inode number that stat(2) gives for a path; null if it is not there, or takes longer than it may. */
export function lookUpInode(path: string): Promise<number | null> {
  return new Promise((resolve) => {
    execFile('stat', ['-c', '%i', '--', path], { timeout: TIMEOUT_MS, killSignal: 'SIGKILL' }, (error, stdout) => {
      const inode = Number.parseInt(stdout, 10);
      resolve(error === null && Number.isSafeInteger(inode) ? inode : null);
    });
  });
}
