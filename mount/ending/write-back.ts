/**
 * Before a vbd is cut off from those who hold it, what they wrote and still keep in caches of their own comes down to it:
 *
 *      mounted file systems: syncfs ──► device mapper ──► loop devices: flushed, with the file system that has them open
 *
 * All of that comes to the vbd as writes and an fsync, which its server answers. So it is done by helper programs: a process
 * of the bus that did it would wait for its own mount. A helper that hangs, because what it asks hangs, is left behind when
 * the time is up.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { FusetapError, type Holder, type PlainError } from '../../drivers/errors.js';
import { readMountNamespaces } from '../../system/proc.js';
import { within } from '../../system/within.js';
import type { TransportName } from '../control/interface.js';
import { findVbdHolders, type HeldFile } from '../holders/find-holders.js';
import { lookUpInode } from '../holders/look-up.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { type Above, findAbove, type MountAbove } from './above.js';
import type { Limit } from './limit.js';

/** how long it may take to find out who holds a file: a process that hangs can make that hang too */
const LOOK_MS = 5_000;

/** What became of those who held a vbd. */
export interface WrittenBack {
  /** who is about to be cut off */
  readonly holders: Holder[];
  /** why something of theirs may not have come down to the vbd */
  readonly error: PlainError | null;
}

export const NOBODY: WrittenBack = { holders: [], error: null };

/** The files of a vbd that somebody has open, in the terms that /proc uses. */
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
 * Writes back what lies on the files of one vbd.
 * @param vdev for messages
 * @param files those that somebody holds; of what nobody holds there is nothing above
 * @param options mode `r`: nothing can come down, only the holders are found
 */
export async function writeBackAbove(
  vdev: string,
  files: readonly HeldFile[],
  { limit, readOnly, runtimeDir }: { limit: Limit; readOnly: boolean; runtimeDir: string },
): Promise<WrittenBack> {
  if (files.length === 0) return NOBODY;
  const looked = Promise.all(files.map((file) => findVbdHolders(file, runtimeDir)));
  const holders = (await within(looked, LOOK_MS, [])).flat();
  if (readOnly) return { holders, error: null };
  const failures = await writeBack(await findAbove(files), limit);
  if (failures.length === 0) return { holders, error: null };
  const error = new FusetapError('FAILED', `what lies on ${vdev} was not all written back: ${failures.join('; ')}`, {
    hint: 'files that were written there may be lost or cut short: check the file system',
    operation: 'write-back',
    holders,
  });
  return { holders, error: error.toJSON() };
}

/** @returns what failed, one line each */
async function writeBack({ mounts, devices }: Above, limit: Limit): Promise<string[]> {
  const failures = await Promise.all(mounts.map((mount) => syncMount(mount, limit)));
  // in order: what is above comes down to what is below
  for (const device of devices) failures.push(await flushDevice(device, limit));
  return failures.filter((failure) => failure !== null);
}

async function syncMount({ mountpoint, path, isFuse, dev }: MountAbove, limit: Limit): Promise<string | null> {
  if (path === null) return `${mountpoint}: another mount lies on top of it`;
  // a FUSE program learns of an fsync, not of a syncfs
  const failure = (await run('sync', ['-f', path], limit)) ?? (isFuse ? await run('sync', [path], limit) : null);
  if (failure === null) return null;
  // who unmounts writes back
  const isThere = (await readMountNamespaces()).flat().some((mount) => mount.dev === dev);
  return isThere ? `${mountpoint}: ${failure}` : null;
}

/** Also the file system that has the device open, where no path leads to it: after a lazy unmount. */
async function flushDevice(device: string, limit: Limit): Promise<string | null> {
  if (!existsSync(device)) return null;
  const inUse = await run('blockdev', ['--flushbufs', device], limit);
  const failure = inUse ?? (await run('sync', [device], limit));
  // it went by itself: with its mount, or its user
  return failure === null || /No such device/.test(failure) ? null : `${device}: ${failure}`;
}

/** Runs a helper program. @returns why it failed, or null */
async function run(program: string, args: readonly string[], limit: Limit): Promise<string | null> {
  const env = { ...process.env, LC_ALL: 'C', PATH: `${process.env.PATH ?? '/usr/bin:/bin'}:/usr/sbin:/sbin` };
  let kill = (): void => {};
  const ended = new Promise<string | null>((resolve) => {
    const child = execFile(program, args, { env }, (error, _, stderr) => {
      if (error === null) resolve(null);
      else if (error.code === 'ENOENT') resolve(`${program} is not installed`);
      else resolve(lastWords(stderr) ?? `${program} ended with ${error.code ?? error.signal}`);
    });
    // it may hang so that no signal ends it: nothing waits for it then
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
