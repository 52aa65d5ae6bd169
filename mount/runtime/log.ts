/**
 * The log of a bus, as its keeper writes it: state/NAME/log, and log.1 with what came before.
 *
 * It is standard output and error of keeper and server, so that the last words of one that crashes are in it too. A
 * server keeps its descriptors for as long as it lives, therefore the log is never another file: what is too long is
 * copied to log.1 and cut to nothing. All write with O_APPEND, so whatever comes after the cut comes to the start.
 */
import {
  closeSync,
  constants,
  copyFileSync,
  fstatSync,
  ftruncateSync,
  openSync,
  renameSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { duplicateFd } from '../../system/libc.js';
import { type BusEvent, printLine } from './log-line.js';

const STDOUT = 1;
const STDERR = 2;

/** The longest log; there are two, log and log.1. */
export const LOG_LIMIT_BYTES = 1 << 20;

/** for what is printed while nothing happens that would be logged */
const LOOK_MS = 10_000;

/** Opens the log of a bus for writing at its end. @throws the error of the system */
export function openLog(stateDir: string): number {
  const { O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW } = constants;
  return openSync(join(stateDir, 'log'), O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW, 0o600);
}

let currentDir: string | null = null;

/**
 * Makes the log of the bus this process's output, and keeps it short from now on. To be called with the lock on the bus
 * held: the log that we were started with may have gone with the directory of the keeper before us.
 */
export function useLog(stateDir: string): void {
  const path = join(stateDir, 'log');
  const named = statSync(path, { throwIfNoEntry: false });
  const ours = fstatSync(STDOUT);
  if (named === undefined || named.ino !== ours.ino || named.dev !== ours.dev) {
    const fd = openLog(stateDir);
    duplicateFd(fd, STDOUT);
    duplicateFd(fd, STDERR);
    closeSync(fd);
  }
  currentDir = stateDir;
  setInterval(shorten, LOOK_MS).unref();
}

/** Writes an event to the log, as one line. */
export function logEvent(event: BusEvent): void {
  try {
    writeSync(STDOUT, `${printLine(new Date(), event)}\n`);
    shorten();
  } catch {
    // a full disk must not end the bus
  }
}

function shorten(): void {
  if (currentDir === null) return;
  try {
    shortenLog(currentDir, STDOUT);
  } catch {
    // as above; and the directory may have been taken away
  }
}

/** Moves a log that is too long to log.1. @param fd the log, open for writing */
export function shortenLog(stateDir: string, fd: number, limitBytes = LOG_LIMIT_BYTES): void {
  if (fstatSync(fd).size <= limitBytes) return;
  const path = join(stateDir, 'log');
  let copied: number;
  do {
    copied = fstatSync(fd).size;
    copyFileSync(path, `${path}.new`);
    // once more where a server wrote meanwhile
  } while (fstatSync(fd).size !== copied);
  renameSync(`${path}.new`, `${path}.1`);
  ftruncateSync(fd, 0);
}
