/**
 * Before a vbd in use is detached by force, its users' caches are written back to it:
 *
 *      mounted file systems: syncfs ──► device mapper ──► loop devices: flush, with the file system that has them open
 *
 * The vbd gets these as writes and an fsync, which its server answers. So helper programs do it: a process of the bus
 * would wait for its own mount. A helper that hangs is left behind when the time is up.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { FusetapError, type Holder, type PlainError } from '../../drivers/errors.js';
import { readMountNamespaces } from '../../system/proc.js';
import { until } from '../../system/until.js';
import { within } from '../../system/within.js';
import type { TransportName } from '../control/interface.js';
import { findVbdHolders, type HeldFile } from '../holders/find-holders.js';
import { lookUpInode } from '../holders/look-up.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { type Above, findAbove, type MountAbove } from './above.js';
import type { Limit } from './limit.js';

/** how long the search for the users of a file may take: a process that hangs can make the search hang too */
const LOOK_MS = 5_000;
/** how long the kernel may take to clear a loop device that nobody uses any more */
const CLEAR_MS = 1_000;
const CLEAR_POLL_MS = 20;

/** The result of a write-back. */
export interface WrittenBack {
  /** the users of the vbd, which will be cut off */
  readonly holders: Holder[];
  /** why some of their data may not have reached the vbd; null if all did */
  readonly error: PlainError | null;
}

export const NOBODY: WrittenBack = { holders: [], error: null };

/** The files of a vbd, described as in /proc. */
export function heldFiles(
  { place, mountDev, transport }: { place: BusPlace; mountDev: string; transport: TransportName },
  files: readonly { readonly vdev: string; readonly nodeId: number }[],
): Promise<HeldFile[]> {
  return Promise.all(
    files.map(async ({ vdev, nodeId }) => {
      const path = join(place.path, vdev);
      const ino = transport === 'fuse-native' ? await lookUpInode(path) : null;
      return { mountDev, ino: ino ?? nodeId, path };
    }),
  );
}

/**
 * Writes back the caches above the files of one vbd.
 * @param vdev for messages
 * @param files the files in use; a file that is not in use has nothing above it
 * @param options readOnly: there is nothing to write back, so only find the users
 */
export async function writeBackAbove(
  vdev: string,
  files: readonly HeldFile[],
  { limit, readOnly, runtimeDir }: { limit: Limit; readOnly: boolean; runtimeDir: string },
): Promise<WrittenBack> {
  if (files.length === 0) return NOBODY;
  const looked = findVbdHolders(files, runtimeDir);
  const holders = (await within(looked, LOOK_MS, [])).flat();
  if (readOnly) return { holders, error: null };
  const failures = await writeBack(await findAbove(files), limit);
  if (failures.length === 0) return { holders, error: null };
  const error = new FusetapError('FAILED', `not everything above ${vdev} was written back: ${failures.join('; ')}`, {
    hint: 'files that were written there may be lost or incomplete: check the file system',
    operation: 'write-back',
    holders,
  });
  return { holders, error: error.toJSON() };
}

/** @returns the failures, one line each */
async function writeBack({ mounts, devices }: Above, limit: Limit): Promise<string[]> {
  const failures = await Promise.all(mounts.map((mount) => syncMount(mount, limit)));
  // one after the other, from top to bottom: each device writes to the next one below
  for (const device of devices) failures.push(await flushDevice(device, limit));
  return failures.filter((failure) => failure !== null);
}

async function syncMount({ mountpoint, path, isFuse, dev }: MountAbove, limit: Limit): Promise<string | null> {
  if (path === null) return `${mountpoint}: another mount covers it`;
  // the kernel does not send syncfs to a FUSE program, but it sends fsync
  const failure = (await run('sync', ['-f', path], limit)) ?? (isFuse ? await run('sync', [path], limit) : null);
  if (failure === null) return null;
  // if it was unmounted meanwhile, the unmount has written it back
  const isThere = (await readMountNamespaces()).flat().some((mount) => mount.dev === dev);
  return isThere ? `${mountpoint}: ${failure}` : null;
}

/** Flushes a device, with the file system on it: also one without a path, after a lazy unmount. */
async function flushDevice(device: string, limit: Limit): Promise<string | null> {
  if (!existsSync(device)) return null;
  const inUse = await run('blockdev', ['--flushbufs', device], limit);
  const failure = inUse ?? (await run('sync', [device], limit));
  // the device is gone, with its mount or its user
  if (failure === null || /No such device/.test(failure)) return null;
  const isCleared = /Input\/output error/.test(failure) && (await isLoopCleared(device));
  return isCleared ? null : `${device}: ${failure}`;
}

/**
 * Whether a loop device has no file any more. The kernel clears it when its last user leaves it, after that user has written
 * back; requests that come while it does so fail with EIO.
 */
async function isLoopCleared(device: string): Promise<boolean> {
  const [, loop] = /^\/dev\/(loop\d+)/.exec(device) ?? [];
  if (loop === undefined) return false;
  const isCleared = (): boolean => !existsSync(`/sys/block/${loop}/loop/backing_file`);
  return await until(isCleared, { timeoutMs: CLEAR_MS, everyMs: CLEAR_POLL_MS });
}

/** Runs a helper program. @returns the reason of a failure, or null */
async function run(program: string, args: readonly string[], limit: Limit): Promise<string | null> {
  const env = { ...process.env, LC_ALL: 'C', PATH: `${process.env.PATH ?? '/usr/bin:/bin'}:/usr/sbin:/sbin` };
  let kill = (): void => {};
  const ended = new Promise<string | null>((resolve) => {
    const child = execFile(program, args, { env }, (error, _, stderr) => {
      if (error === null) resolve(null);
      else if (error.code === 'ENOENT') resolve(`${program} is not installed`);
      else resolve(lastWords(stderr) ?? `${program} ended with ${error.code ?? error.signal}`);
    });
    // the program may hang so that no signal ends it: do not let it keep this process alive
    child.unref();
    kill = () => child.kill('SIGKILL');
  });
  const said = await limit.orLate(ended, LATE);
  if (said === LATE) kill();
  return said;
}
const LATE = 'it took too long';

/** As `sync: error syncing '/m': Input/output error`. */
function lastWords(stderr: string): string | undefined {
  const line = stderr.trim().split('\n').at(-1);
  return line?.split(': ').at(-1) || undefined;
}
