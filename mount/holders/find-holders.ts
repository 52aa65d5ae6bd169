/**
 * Finds the users of a file: processes (open, O_PATH, mapped, working directory), loop devices and mounts; also the
 * processes that have locks on it. Only /proc and /sys are read. No call is made on the file itself: it may be a vbd
 * whose server is dead, or a vbd that the caller itself serves, and the call would block. So a file is identified by
 * the device number of its file system and its inode number, which /proc/PID/fdinfo and maps contain.
 */
import type { Holder } from '../../drivers/errors.js';
import {
  eachProcess,
  type FdInfo,
  type FileLock,
  type Loop,
  listLoops,
  listOpenFiles,
  locate,
  type Mount,
  mapsShow,
  mayInspect,
  type OpenFile,
  readCommand,
  readDirectories,
  readFdinfo,
  readMaps,
  readMountNamespaces,
} from '../../system/proc.js';

import { findBusOfPid } from '../runtime/bus-record.js';

export { describeHolders } from './describe-holders.js';

export interface HeldFile {
  /** `MAJ:MIN` of its mount in decimal, as in mountinfo */
  mountDev: string;
  /** its inode number; for a vbd its node id */
  ino: number | bigint | string;
  /** absolute, without symbolic links */
  path: string;
}

/** The bus of which a process is keeper or server, and the vbd if it is known. */
export interface BusProcess {
  bus: string;
  vdev?: string | undefined;
}

export interface HolderOptions {
  /** processes that do not count, for example those of the bus itself */
  excludePids?: Iterable<number>;
  describePid?: (pid: number, file: HeldFile) => BusProcess | null | Promise<BusProcess | null>;
  /** only users that may write: processes that have it open for writing, and writable loop devices; default: false */
  onlyWriters?: boolean;
}

type DescribePid = (pid: number) => BusProcess | null | Promise<BusProcess | null>;

/** the file in question, described as in /proc */
interface Wanted {
  dev: string;
  ino: string;
  path: string;
  /** its path inside its file system, which is the same for all bind mounts */
  inside: string | null;
  /** the mounts of its file system, by namespace */
  namespaces: Mount[][];
  mountIds: Set<number>;
}

/**
 * The users of the file, processes first. Processes in other containers are found if their /proc entries can be read;
 * an unprivileged user can read only those of their own processes. A descriptor in flight through a socket is not seen.
 */
export async function findHolders(file: HeldFile, options: HolderOptions = {}): Promise<Holder[]> {
  const [holders = []] = await findHoldersOf([file], options);
  return holders;
}

/** The users of several files, which are looked for together: reading the descriptors of all processes takes long. */
export async function findHoldersOf(files: readonly HeldFile[], options: HolderOptions = {}): Promise<Holder[][]> {
  const { excludePids, describePid, onlyWriters = false } = options;
  const namespaces = await readMountNamespaces();
  const wanted = files.map((file) => describeWanted(file, namespaces));
  const processes = await findProcesses(wanted, new Set(excludePids), onlyWriters);
  return await Promise.all(
    files.map(async (file, index) => {
      const describe = describePid && ((pid: number) => describePid(pid, file));
      const named = await Promise.all((processes[index] ?? []).map((pid) => describeProcess(pid, describe)));
      const each = wanted[index] as Wanted;
      const loops = findLoops(each, namespaces, onlyWriters);
      return onlyWriters ? [...named, ...loops] : [...named, ...loops, ...findBindMounts(each)];
    }),
  );
}

/** The users of files of a bus. A bus that has one of them as its image is named as a bus. */
export function findVbdHolders(
  files: readonly HeldFile[],
  runtimeDir: string,
  excludePids: Iterable<number> = [],
): Promise<Holder[][]> {
  const describePid = (pid: number, { mountDev, ino }: HeldFile): BusProcess | null =>
    findBusOfPid(runtimeDir, pid, `${mountDev}:${ino}`);
  return findHoldersOf(files, { describePid, excludePids });
}

function describeWanted(file: HeldFile, all: Mount[][]): Wanted {
  const namespaces = all.filter((mounts) => mounts.some((mount) => mount.dev === file.mountDev));
  const here = namespaces.map((mounts) => locate(mounts, file.path)).find((place) => place?.dev === file.mountDev);
  const ids = namespaces.flat().filter((mount) => mount.dev === file.mountDev);
  return {
    dev: file.mountDev,
    ino: String(file.ino),
    path: file.path,
    inside: here?.path ?? null,
    namespaces,
    mountIds: new Set(ids.map((mount) => mount.id)),
  };
}

/** The pids that use each file, sorted. */
async function findProcesses(
  wanted: readonly Wanted[],
  excluded: Set<number>,
  onlyWriters: boolean,
): Promise<number[][]> {
  const found = wanted.map(() => new Set<number>());
  const mappings: Promise<unknown>[] = [];
  for await (const pid of eachProcess()) {
    if (excluded.has(pid) || !mayInspect(pid)) continue;
    const files = listOpenFiles(pid).flatMap((file) => {
      const info = readFdinfo(pid, file.fd);
      return info === null || (onlyWriters && !info.isWritable) ? [] : [{ file, info }];
    });
    const directories = onlyWriters ? [] : readDirectories(pid);
    const uses = (each: Wanted): boolean =>
      files.some(({ file, info }) => isWanted(file, info, each)) || directories.some((path) => leadsTo(path, each));
    for (const [index, pids] of found.entries()) if (uses(wanted[index] as Wanted)) pids.add(pid);
    if (onlyWriters || found.every((pids) => pids.has(pid))) continue;
    // not awaited here: the maps are read while the loop goes on
    const note = (maps: string): void => {
      for (const [index, { dev, ino }] of wanted.entries()) if (mapsShow(maps, dev, ino)) found[index]?.add(pid);
    };
    mappings.push(readMaps(pid).then(note));
  }
  await Promise.all(mappings);
  return found.map((pids) => [...pids].sort((a, b) => a - b));
}

function isWanted(file: OpenFile, info: FdInfo, wanted: Wanted): boolean {
  if (info.ino !== null && info.ino !== wanted.ino) return false;
  // a lazily unmounted mount is in no list any more, but paths on it still read as before
  if (!wanted.mountIds.has(info.mountId)) return info.ino !== null && withoutDeleted(file.path) === wanted.path;
  return info.ino !== null || leadsTo(file.path, wanted);
}

/** Whether a path from /proc is the path of the file in any of the mount namespaces. */
function leadsTo(path: string, wanted: Wanted): boolean {
  if (wanted.inside === null) return false;
  return wanted.namespaces.some((mounts) => {
    const place = locate(mounts, withoutDeleted(path));
    return place?.dev === wanted.dev && place.path === wanted.inside;
  });
}

const withoutDeleted = (path: string): string => path.replace(/ \(deleted\)$/, '');

/** A process as a holder, with its bus if it is a process of fusetap. */
async function describeProcess(pid: number, describePid: DescribePid | undefined): Promise<Holder> {
  const command = readCommand(pid);
  const own = await describePid?.(pid);
  return {
    pid,
    ...(command === null ? {} : { command }),
    ...(own ? { bus: own.bus } : {}),
    ...(own?.vdev === undefined ? {} : { vdev: own.vdev }),
  };
}

function findLoops(wanted: Wanted, namespaces: Mount[][], onlyWriters: boolean): Holder[] {
  return listLoops()
    .filter((loop) => leadsTo(loop.backingFile, wanted) && !(onlyWriters && loop.readOnly))
    .flatMap((loop) => nameLoop(loop, namespaces));
}

/** The loop devices on a file. @param namespaces as readMountNamespaces returns them */
export function findLoopsOn(file: HeldFile, namespaces: Mount[][]): Loop[] {
  const wanted = describeWanted(file, namespaces);
  return listLoops().filter((loop) => leadsTo(loop.backingFile, wanted));
}

/** A loop device as holders: one for each mount point of the device or of a partition of it. */
export function nameLoop(loop: { path: string; devs: string[] }, namespaces: Mount[][]): Holder[] {
  const places = namespaces.flat().filter((mount) => loop.devs.includes(mount.dev));
  const mountpoints = [...new Set(places.map((mount) => mount.mountpoint))];
  if (mountpoints.length === 0) return [{ loop: loop.path }];
  return mountpoints.map((mount) => ({ loop: loop.path, mount }));
}

/** The bind mounts of the file. */
function findBindMounts(wanted: Wanted): Holder[] {
  if (wanted.inside === null || wanted.inside === '/') return [];
  // the kernel marks a file as deleted if a lookup of it failed: so does a vbd while it is leaving
  const isBound = (mount: Mount): boolean => mount.root.replace(/\/\/deleted$/, '') === wanted.inside;
  const binds = wanted.namespaces.flat().filter((mount) => mount.dev === wanted.dev && isBound(mount));
  return [...new Set(binds.map((mount) => mount.mountpoint))].map((mount) => ({ mount }));
}

/**
 * The processes that have a lock on a file.
 * @param file `MAJ:MIN:INODE` as in FileLock
 */
export async function findLockHolders(
  file: string,
  matches: (lock: FileLock) => boolean,
  describePid?: DescribePid,
): Promise<Holder[]> {
  const found: number[] = [];
  for await (const pid of eachProcess()) {
    const holds = listOpenFiles(pid).some(({ fd }) =>
      readFdinfo(pid, fd)?.locks.some((lock) => lock.file === file && matches(lock)),
    );
    if (holds) found.push(pid);
  }
  return Promise.all(found.map((pid) => describeProcess(pid, describePid)));
}
