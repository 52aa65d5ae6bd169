/**
 * Saves a vbd to an open descriptor, for example to the standard output: through a FIFO that the bus writes to.
 *
 *      server ──► state/NAME/save-PID ──► this process ──► descriptor
 */
import { execFileSync } from 'node:child_process';
import { chownSync, closeSync, constants, openSync, rmSync, statSync, write } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { FusetapError, toFusetapError } from '../../drivers/errors.js';
import { olderBus } from '../../mount/client/follow.js';
import { type BusPlace, type CopyOptions, save } from '../../mount/client/index.js';
import type { SaveResult } from '../../mount/control/interface.js';

const writeAsync = promisify(write);
/** pause before a write to a full pipe is tried again, if somebody made the pipe non-blocking */
const RETRY_MS = 10;

/**
 * Writes a consistent copy of a vbd to a descriptor: all bytes, holes as zeros.
 * @throws FusetapError as `save`; FAILED with errno EPIPE if the reader of the descriptor has gone
 */
export async function saveToFd(
  place: BusPlace,
  vdev: string,
  fd: number,
  { signal, progress }: CopyOptions = {},
): Promise<SaveResult> {
  const path = join(place.stateDir, `save-${process.pid}`);
  makeFifo(path, place.stateDir);
  try {
    // as long as this process has it open for writing too, it has no end
    const guard = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
    const reader = new Socket({ fd: openSync(path, constants.O_RDONLY | constants.O_NONBLOCK), writable: false });
    const failed = new AbortController();
    const written = copyAll(reader, fd).catch((error: unknown) => {
      failed.abort(error);
      reader.destroy();
      throw error;
    });
    written.catch(() => {});
    const stop = signal === undefined ? failed.signal : AbortSignal.any([signal, failed.signal]);
    try {
      const options = { signal: stop, ...(progress && { progress }) };
      const result = await save(place, vdev, { path, force: false }, options).finally(() => closeSync(guard));
      await written;
      return result;
    } catch (error) {
      reader.destroy();
      throw failed.signal.aborted ? failed.signal.reason : explain(place, error);
    }
  } finally {
    rmSync(path, { force: true });
  }
}

/** Node has no call that makes a FIFO. */
function makeFifo(path: string, stateDir: string): void {
  execFileSync('mkfifo', ['-m', '600', path], { stdio: ['ignore', 'ignore', 'inherit'] });
  // root may save a vbd of a user's bus
  const { uid, gid } = statSync(stateDir);
  if (uid !== process.geteuid?.()) chownSync(path, uid, gid);
}

async function copyAll(from: Socket, fd: number): Promise<void> {
  for await (const chunk of from) await writeFully(fd, chunk as Buffer);
}

/** With write(2) in a thread: process.stdout blocks the event loop while its pipe is full. */
async function writeFully(fd: number, bytes: Buffer): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    try {
      done += (await writeAsync(fd, bytes, done, bytes.length - done)).bytesWritten;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'EAGAIN') throw toFusetapError(error, `the copy is incomplete: it cannot be written: ${code}`);
      await delay(RETRY_MS);
    }
  }
}

/** A bus of an older version takes the FIFO for a file that is there already. */
function explain({ name }: BusPlace, error: unknown): unknown {
  const isRefused = error instanceof FusetapError && error.code === 'BUSY' && /is there already/.test(error.message);
  return isRefused ? olderBus(name) : error;
}
