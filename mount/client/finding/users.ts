/** Finds who uses the vbds of a bus: processes, loop devices, mounts and other buses. */
import type { Holder } from '../../../drivers/errors.js';
import { builtin } from '../../../system/builtin.js';
import { mountOn, readNamespaces } from '../../../system/proc.js';
import type { BusInfo, VbdInfo } from '../../control/interface.js';
import { findVbdHolders } from '../../holders/find-holders.js';

/** how long a bus may take to tell the inode numbers of its files */
const LIMIT_MS = 2_000;

/** The users of each file of a bus, by its path; null if they cannot be found: the bus is dead, or does not answer. */
export type Users = ReadonlyMap<string, Holder[] | null>;

/** Where a bus is mounted. */
export interface SeenBus {
  /** as `MAJOR:MINOR` */
  readonly dev: string;
  /** its path from here */
  readonly path: string;
  /** a process in the other mount namespace where it is mounted; null if it is mounted in ours */
  readonly elsewhere: number | null;
}

/** Looks for the mount of a bus, in our mount namespace first. */
export async function seeBus(path: string): Promise<SeenBus | null> {
  const own = await mountOn(path);
  if (own !== undefined) return { dev: own.dev, path, elsewhere: null };
  for (const { pid, mounts } of await readNamespaces()) {
    const mount = mounts.findLast(({ mountpoint, type }) => mountpoint === path && type.startsWith('fuse'));
    if (mount !== undefined && pid !== 'self')
      return { dev: mount.dev, path: `/proc/${pid}/root${path}`, elsewhere: pid };
  }
  return null;
}

/** The users of vbds of a bus and of their partitions. This process is not one of them. */
export async function findUsers(
  bus: Pick<BusInfo, 'path'>,
  vbds: readonly VbdInfo[],
  runtimeDir: string,
): Promise<Users> {
  const paths = vbds.flatMap(({ path, partitions }) => [
    path,
    ...(partitions ?? []).map((partition) => partition.path),
  ]);
  const unknown = new Map(paths.map((path) => [path, null]));
  const seen = await seeBus(bus.path);
  if (seen === null || paths.length === 0) return unknown;
  const inodes = await inodesOf(paths.map((path) => seen.path + path.slice(bus.path.length)));
  if (inodes === null) return unknown;
  const files = paths.map((path, index) => ({ mountDev: seen.dev, ino: inodes[index] ?? '', path }));
  const holders = await findVbdHolders(files, runtimeDir, [process.pid]);
  return new Map(paths.map((path, index) => [path, holders[index] ?? []]));
}

/** A child process asks the bus, which may hang. @returns null if not all of them answer in time */
function inodesOf(paths: readonly string[]): Promise<string[] | null> {
  const options = { cwd: '/', timeout: LIMIT_MS, killSignal: 'SIGKILL' as const };
  return new Promise((done) => {
    builtin.childProcess.execFile('stat', ['-c', '%i', '--', ...paths], options, (error, stdout) => {
      done(error === null ? stdout.trimEnd().split('\n') : null);
    });
  });
}
