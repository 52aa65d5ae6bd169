/**
 * The last flush of a vbd after the bus has failed, when no server can do it. Acknowledged writes are in the image's
 * page cache, so for our own drivers an fsync of the keeper's descriptor is as good. A third-party driver may keep data
 * elsewhere, which only the driver itself can flush. A remote disk has kept whether there is anything to flush.
 */
import { spawn } from 'node:child_process';
import { fsync } from 'node:fs';
import { isAbsolute } from 'node:path';
import { FusetapError, type PlainError } from '../../../drivers/errors.js';
import { nodesOf } from '../../../drivers/graph.js';
import { isTimeUp, type Limit } from '../../ending/limit.js';
import { readStats } from '../../ledger/counters.js';
import type { BusParts } from '../vbds/bus-parts.js';
import { type Vbd, writtenFiles } from '../vbds/vbd.js';
import { filesOf } from '../vbds/vbd-files.js';

/** @returns why acknowledged writes may be lost, or null */
export async function flushWithoutServer(bus: BusParts, vbd: Vbd, limit: Limit): Promise<PlainError | null> {
  if (vbd.mode === 'r') return null;
  for (const { image } of writtenFiles(vbd.source)) {
    const failure = await syncImage(vbd.vdev, image.fd, limit);
    if (failure !== null) return failure.toJSON();
  }
  const earlier = flushFailedBefore(bus, vbd);
  if (earlier !== null) return earlier.toJSON();
  const remote = remoteNotFlushed(bus, vbd);
  if (remote !== null) return remote.toJSON();
  const foreign = [...nodesOf(vbd.source.graph).values()].find(({ driver }) => isAbsolute(driver));
  if (foreign === undefined || !wasWritten(bus, vbd)) return null;
  const message = `${vbd.vdev} was not flushed: its driver is ${foreign.driver}, and there is no server to run it`;
  return new FusetapError('FAILED', message, { operation: 'flush' }).toJSON();
}

/** Only a server can flush what is on another machine. */
function remoteNotFlushed(bus: BusParts, vbd: Vbd): FusetapError | null {
  const { kept } = vbd.source;
  if (kept === null || !(kept.isUnflushed ?? wasWritten(bus, vbd))) return null;
  const message = `${vbd.vdev} was not flushed: its bytes are at the other end of a network, and there is no server to ask`;
  return new FusetapError('FAILED', message, { operation: 'flush' });
}

/** The error of a flush that failed since the attach, if any. */
function flushFailedBefore({ ledger }: BusParts, { vdev, ledgerIndex }: Vbd): FusetapError | null {
  const { count, errno } = ledger.flushErrors(ledgerIndex);
  if (count === 0) return null;
  return new FusetapError('FAILED', `a flush of ${vdev} failed while it was attached`, { errno, operation: 'flush' });
}

function wasWritten({ statsFd }: BusParts, vbd: Vbd): boolean {
  return filesOf(vbd).some(({ ledgerIndex }) => {
    const { write, discard } = readStats(statsFd, ledgerIndex);
    return write.requests + discard.requests > 0;
  });
}

/** fsync(2) by a helper that inherits the descriptor: a disk that hangs must not block a thread of the keeper. */
async function syncImage(vdev: string, fd: number, limit: Limit): Promise<FusetapError | null> {
  try {
    await limit.wait(fsyncByHelper(fd), `${vdev} was not flushed`);
    return null;
  } catch (error) {
    if (isTimeUp(error)) return error;
    const message = `the last flush of ${vdev} failed: ${(error as Error).message}`;
    return new FusetapError('FAILED', message, { operation: 'flush', cause: error });
  }
}

const FSYNC = 'require("node:fs").fsyncSync(3)';

function fsyncByHelper(fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['-e', FSYNC], { stdio: ['ignore', 'ignore', 'pipe', fd] });
    child.unref();
    let said = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    // if the helper cannot be started
    child.once('error', () => fsync(fd, (error) => (error === null ? resolve() : reject(error))));
    child.once('close', (status, signal) => {
      if (status === 0) return resolve();
      reject(new Error(/\b[A-Z]+: .*, fsync/.exec(said)?.[0] ?? `the helper ended with ${signal ?? status}`));
    });
  });
}
