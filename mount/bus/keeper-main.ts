/**
 * The keeper process. Started detached, with one JSON argument; reports on descriptor 3, in one line, when the bus
 * answers or why it does not.
 */
import { closeSync, rmdirSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { toFusetapError } from '../../drivers/errors.js';
import { createControl } from './control.js';
import { Keeper } from './keeper.js';
import { clearMountpoint } from './mountpoint.js';
import { type BusPlace, makeBusDirectories } from './runtime-dir.js';
import type { KeeperArgument } from './start-keeper.js';
import { takeStateLock } from './state-lock.js';

const REPORT_FD = 3;

function report(line: object): void {
  try {
    writeSync(REPORT_FD, `${JSON.stringify(line)}\n`);
    closeSync(REPORT_FD);
  } catch {
    // whoever started us is gone: the bus is there all the same
  }
}

/** Leaves nothing behind of a bus that has ended, but a user's own directory. */
function removeFiles(place: BusPlace): void {
  rmSync(place.stateDir, { recursive: true, force: true });
  if (place.ownDirectory) return;
  try {
    rmdirSync(place.path);
  } catch (error) {
    console.error(`cannot remove ${place.path}: ${(error as Error).message}`);
  }
}

async function run({ persistent, bus, ...where }: KeeperArgument): Promise<void> {
  const place: BusPlace = { name: bus, ...where };
  const { path, stateDir, runtimeDir } = place;
  const socketPath = join(place.stateDir, 'control.sock');
  const lockFd = await takeStateLock(place);
  makeBusDirectories(place, process.getuid?.() ?? 0);
  await clearMountpoint(path);
  const keeper = await Keeper.start({ bus, path, stateDir, runtimeDir, lockFd, persistent });
  let ended = false;
  const end = async (): Promise<void> => {
    if (ended) return;
    ended = true;
    // nobody can connect any more, and who does not find the socket waits for the lock
    rmSync(socketPath, { force: true });
    await keeper.end();
    removeFiles(place);
    process.exit(0);
  };
  const control = createControl(keeper, () => void end());
  rmSync(socketPath, { force: true });
  const umask = process.umask(0o177);
  await new Promise<void>((resolve, reject) => {
    control.once('error', reject);
    // node's listen takes the long way of a file descriptor where the path is too long for a socket address
    control.listen(socketPath, resolve);
  });
  process.umask(umask);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      console.log(`${new Date().toISOString()} ${signal}: flushing, then leaving`);
      keeper.stop(true).then(end, end);
    });
  }
  report({ ok: true, pid: process.pid });
}

run(JSON.parse(process.argv[2] ?? '') as KeeperArgument).catch((error: unknown) => {
  const known = toFusetapError(error, error instanceof Error ? error.message : String(error));
  if (known.code === 'FAILED') console.error(error);
  report({ error: known.toJSON() });
  process.exit(1);
});
