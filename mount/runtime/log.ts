/**
 * The log of a bus: state/NAME/log, and log.1 with the older lines.
 *
 * It is standard output and standard error of keeper and server, so it also contains the output of a process that
 * crashes. A server keeps its descriptors as long as it lives, so the log must stay the same file: a log that is too
 * long is copied to log.1 and truncated. All processes write with O_APPEND, so after the truncation they write at the
 * start.
 */
import { closeSync, copyFileSync, fstatSync, ftruncateSync, renameSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { duplicateFd } from '../../system/libc.js';
import { type BusEvent, openLog, printLine } from './log-line.js';

const STDOUT = 1;
const STDERR = 2;

/** The size limit of log; log.1 has the same. */
export const LOG_LIMIT_BYTES = 1 << 20;

/** how often the size is checked while no event is logged: processes may print */
const LOOK_MS = 10_000;

let currentDir: string | null = null;

/**
 * Makes the log of the bus the output of this process, and limits its size from now on. Call it under the lock on the
 * bus: the log with which this process was started may have been removed by the previous keeper.
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
    // as above; also, the directory may have been removed
  }
}

/** Copies a log that is too long to log.1 and truncates it. @param fd the log, open for writing */
export function shortenLog(stateDir: string, fd: number, limitBytes = LOG_LIMIT_BYTES): void {
  if (fstatSync(fd).size <= limitBytes) return;
  const path = join(stateDir, 'log');
  let copied: number;
  do {
    copied = fstatSync(fd).size;
    copyFileSync(path, `${path}.new`);
    // copy again if a server wrote meanwhile
  } while (fstatSync(fd).size !== copied);
  renameSync(`${path}.new`, `${path}.1`);
  ftruncateSync(fd, 0);
}
