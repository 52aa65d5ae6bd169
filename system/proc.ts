/**
 * What the kernel tells of processes, mounts and block devices in /proc and /sys: reading and parsing only.
 *
 * Nothing here stats a path or opens a file of another file system, so none of it waits for a disk or a FUSE server.
 * What is read of many processes is read synchronously, because there are thousands of such files; those of a process that
 * is stuck make their reader wait, so it is found out before and left out (stuck-processes.ts). What takes a lock that is
 * held for longer (maps, mountinfo) is read asynchronously.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { findStuck } from './stuck-processes.js';
import { within } from './within.js';

/** how long the event loop may be kept from other work at a stretch */
const TURN_MS = 5;
/** a process that is stuck with its memory locked never shows its maps */
const MAPS_PATIENCE_MS = 1_000;

/** `MAJ:MIN` in decimal, as in mountinfo and sysfs, of a device number as stat(2) and the loop driver encode it. */
export function deviceName(dev: bigint | number): string {
  const n = BigInt(dev);
  const major = ((n >> 8n) & 0xfffn) | ((n >> 32n) & 0xff_fff000n);
  const minor = (n & 0xffn) | ((n >> 12n) & 0xffffff00n);
  return `${major}:${minor}`;
}

// ── mounts ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/** A line of mountinfo; see proc_pid_mountinfo(5). */
export interface Mount {
  /** unique over all mount namespaces; what fdinfo calls mnt_id */
  id: number;
  /** `MAJ:MIN` of the file system */
  dev: string;
  /** what of the file system is mounted: `/` is all of it */
  root: string;
  mountpoint: string;
  type: string;
  /** a device node, or any word */
  source: string;
  /** whether the file system itself is mounted read-only; a read-only bind mount of a writable one is not */
  readOnly: boolean;
  /** the user and group that a FUSE file system belongs to; null for other types */
  owner: { uid: number; gid: number } | null;
}

export function parseMountinfo(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split('\n')) {
    // the separator cannot be found in a path: there a space is \040
    const [before, after] = line.split(' - ');
    const [id, , dev, root, mountpoint] = (before ?? '').split(' ');
    const [type, source, options] = (after ?? '').split(' ');
    if (dev === undefined || root === undefined || mountpoint === undefined || type === undefined) continue;
    mounts.push({
      id: Number(id),
      dev,
      root: unescapeOctal(root),
      mountpoint: unescapeOctal(mountpoint),
      type,
      source: unescapeOctal(source ?? ''),
      readOnly: (options ?? '').split(',').includes('ro'),
      owner: readOwner(options ?? ''),
    });
  }
  return mounts;
}

/** FUSE shows whom it was mounted for as `user_id=N,group_id=N`; other types show nothing like it. */
function readOwner(options: string): Mount['owner'] {
  const [, uid, gid] = /(?:^|,)user_id=(\d+),group_id=(\d+)(?:,|$)/.exec(options) ?? [];
  return uid === undefined ? null : { uid: Number(uid), gid: Number(gid) };
}

// space, tab, line end, backslash and # are written so, and nothing else
const unescapeOctal = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));

/** The mounts that a process sees; none where it is gone or not ours to look at. */
export async function readMounts(pid: number | 'self'): Promise<Mount[]> {
  return parseMountinfo(await readFile(`/proc/${pid}/mountinfo`, 'utf8').catch(() => ''));
}

/**
 * The uppermost mount on a directory, in our mount namespace: looked up in the kernel's table, because to ask the mount itself
 * could wait for ever.
 */
export async function mountOn(directory: string): Promise<Mount | undefined> {
  return (await readMounts('self')).findLast(({ mountpoint }) => mountpoint === directory);
}

/** A mount namespace as one of its processes sees it. */
export interface MountNamespace {
  /** its paths lead there below /proc/PID/root */
  pid: number | 'self';
  mounts: Mount[];
}

/** The mounts of each mount namespace that can be seen, our own first. */
export async function readMountNamespaces(): Promise<Mount[][]> {
  return (await readNamespaces()).map(({ mounts }) => mounts);
}

/** Each mount namespace that can be seen, our own first. */
export async function readNamespaces(): Promise<MountNamespace[]> {
  const own = readLink('/proc/self/ns/mnt');
  const members = new Map<string, number>();
  for await (const pid of eachProcess()) {
    const namespace = readLink(`/proc/${pid}/ns/mnt`);
    if (namespace !== null && namespace !== own && !members.has(namespace)) members.set(namespace, pid);
  }
  const pids = ['self' as const, ...members.values()];
  return Promise.all(pids.map(async (pid) => ({ pid, mounts: await readMounts(pid) })));
}

/** A file by its file system and its path in there, which all bind mounts of it share. */
export interface Location {
  /** `MAJ:MIN` of the file system */
  dev: string;
  path: string;
  type: string;
  mountpoint: string;
}

/** Where an absolute path without symbolic links leads, told from the mounts alone. */
export function locate(mounts: Mount[], path: string): Location | null {
  let best: Mount | null = null;
  for (const mount of mounts) {
    // of two at one place the later lies on top
    if (isBelow(path, mount.mountpoint) && mount.mountpoint.length >= (best?.mountpoint.length ?? 0)) best = mount;
  }
  if (!best) return null;
  const rest = best.mountpoint === '/' ? path : path.slice(best.mountpoint.length);
  const inside = best.root === '/' ? rest : best.root + (rest === '/' ? '' : rest);
  return { dev: best.dev, path: inside === '' ? '/' : inside, type: best.type, mountpoint: best.mountpoint };
}

/** Whether an absolute path is a directory's own or lies below it. */
export function isBelow(path: string, directory: string): boolean {
  return directory === '/' || path === directory || path.startsWith(`${directory}/`);
}

// ── processes ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** Whether this process is in a user namespace of its own, where root is root of less. */
export function isInUserNamespace(map: string = readText('/proc/self/uid_map') ?? ''): boolean {
  // user_namespaces(7): the first one maps all ids to themselves
  return map !== '' && !/^\s*0\s+0\s+4294967295\s*$/.test(map);
}

/**
 * The pids of all processes but those that are stuck (stuck-processes.ts), giving way to other work of the event loop in
 * between.
 */
export async function* eachProcess(): AsyncGenerator<number> {
  const stuck = await findStuck();
  let turnEnds = performance.now() + TURN_MS;
  for (const name of readDirectory('/proc')) {
    if (!/^\d+$/.test(name) || stuck.has(Number(name))) continue;
    if (performance.now() > turnEnds) {
      await nextTurn();
      turnEnds = performance.now() + TURN_MS;
    }
    yield Number(name);
  }
}

/** Whether the process runs a program whose files we may look at: no kernel thread, no zombie, nobody else's. */
export function isOpenToUs(pid: number): boolean {
  return readLink(`/proc/${pid}/exe`) !== null;
}

/** The name of a process as `ps -o comm` shows it; null where it is gone. Never cmdline: reading that can hang. */
export function readCommand(pid: number): string | null {
  return readText(`/proc/${pid}/comm`)?.trimEnd() ?? null;
}

/**
 * When a process began, in ticks since boot: with its pid it names a process for ever. Null where it is gone.
 * @throws where that cannot be known now, for want of a descriptor
 */
export function readStartTime(pid: number): string | null {
  try {
    const fields = statFields(readFileSync(`/proc/${pid}/stat`, 'utf8'));
    // one that is dead stays for as long as nobody has waited for it: in a container perhaps for ever
    return fields[0] === 'Z' ? null : (fields[19] ?? null);
  } catch (error) {
    if (isForWant(error)) throw error;
    return null;
  }
}

/** Whether a thread waits in the kernel where only SIGKILL, or nothing, ends it. */
export function isThreadBlocked(pid: number, tid: number): boolean {
  return statFields(readText(`/proc/${pid}/task/${tid}/stat`) ?? '')[0] === 'D';
}

/** Whether a process that began then has not ended; one that nobody has reaped has. What cannot be known now is running. */
export function isRunning(pid: number, startTime: string): boolean {
  try {
    const fields = statFields(readFileSync(`/proc/${pid}/stat`, 'utf8'));
    return fields[0] !== 'Z' && fields[0] !== 'X' && fields[19] === startTime;
  } catch (error) {
    return isForWant(error);
  }
}

/**
 * The fields of proc_pid_stat(5) behind the name, which is in brackets and may hold anything: the state is the first (0),
 * utime and stime are 11 and 12, starttime is 19.
 */
export function statFields(stat: string): string[] {
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
}

/** The working and the root directory of a process. */
export function readDirectories(pid: number): string[] {
  return ['cwd', 'root'].flatMap((name) => readLink(`/proc/${pid}/${name}`) ?? []);
}

export interface OpenFile {
  fd: number;
  /** its path as the process sees it; ` (deleted)` may follow */
  path: string;
}

/** The files that a process has open, O_PATH included, without pipes, sockets and the like. */
export function listOpenFiles(pid: number | 'self'): OpenFile[] {
  return readDirectory(`/proc/${pid}/fd`).flatMap((fd) => {
    const path = readLink(`/proc/${pid}/fd/${fd}`);
    return path?.startsWith('/') ? [{ fd: Number(fd), path }] : [];
  });
}

/** A lock that an open file holds; see proc_locks(5). */
export interface FileLock {
  kind: 'OFDLCK' | 'POSIX' | 'FLOCK' | 'LEASE';
  write: boolean;
  /** `MAJ:MIN:INODE` as the kernel prints it: the device numbers in hex */
  file: string;
  /** the bytes from start to end, both included; to the end of all is Infinity */
  start: number;
  end: number;
}

export interface FdInfo {
  mountId: number;
  /** null before Linux 5.14 */
  ino: string | null;
  locks: FileLock[];
}

export function parseFdinfo(text: string): FdInfo {
  const mountId = Number(MOUNT_ID_LINE.exec(text)?.[1]);
  const ino = INO_LINE.exec(text)?.[1] ?? null;
  // thousands of these are read in a row, and few hold a lock
  if (!text.includes('\nlock:')) return { mountId, ino, locks: [] };
  const locks = [...text.matchAll(LOCK_LINE)].map(
    ([, kind, access, file, start, end]): FileLock => ({
      kind: kind as FileLock['kind'],
      write: access === 'WRITE',
      file: file as string,
      start: Number(start),
      end: end === 'EOF' ? Number.POSITIVE_INFINITY : Number(end),
    }),
  );
  return { mountId, ino, locks };
}

const MOUNT_ID_LINE = /^mnt_id:\s*(\d+)$/m;
const INO_LINE = /^ino:\s*(\d+)$/m;
// as `lock:	1: OFDLCK ADVISORY  READ -1 00:1f:123 301 301`
const LOCK_LINE = /^lock:\s+\d+: (OFDLCK|POSIX|FLOCK|LEASE)\s+\w+\s+(\w+)\s+-?\d+ (\w+:\w+:\d+) (\d+) (\d+|EOF)$/gm;

/** What the kernel tells of an open file; null where it was closed meanwhile. */
export function readFdinfo(pid: number | 'self', fd: number): FdInfo | null {
  const text = readText(`/proc/${pid}/fdinfo/${fd}`);
  return text === null ? null : parseFdinfo(text);
}

/** The type of the file system that an open file of ours is on, as `ext4`, told without asking it; null where it is not seen. */
export function fileSystemOf(fd: number): string | null {
  const id = readFdinfo('self', fd)?.mountId;
  return parseMountinfo(readText('/proc/self/mountinfo') ?? '').find((mount) => mount.id === id)?.type ?? null;
}

const FROM_MEMORY: ReadonlySet<string> = new Set(
  'ext2 ext3 ext4 xfs btrfs tmpfs ramfs f2fs bcachefs vfat exfat ntfs3 jfs hfsplus overlay'.split(' '),
);

/**
 * Whether a file system of that type answers fstat(2) from memory, with times of this kernel's clock: local ones do, also
 * where their disk hangs. Those that ask somebody else (NFS, SMB, FUSE, 9P, Ceph, …) may hang.
 */
export function answersFromMemory(fileSystem: string | null): boolean {
  return fileSystem !== null && FROM_MEMORY.has(fileSystem);
}

const mapsUnderWay = new Map<number, Promise<string>>();

/**
 * /proc/PID/maps; empty where it cannot be had. A process that hangs with its memory locked makes this read hang, and
 * the thread that reads: so there is never more than one such read for a process, and nobody waits for it long.
 */
export async function readMaps(pid: number): Promise<string> {
  let reading = mapsUnderWay.get(pid);
  if (!reading) {
    reading = readFile(`/proc/${pid}/maps`, 'utf8')
      .catch(() => '')
      .finally(() => mapsUnderWay.delete(pid));
    mapsUnderWay.set(pid, reading);
  }
  return await within(reading, MAPS_PATIENCE_MS, '');
}

/** Whether maps show a mapping of the file: `dev` as `MAJ:MIN` in decimal. */
export function mapsShow(maps: string, dev: string, ino: string): boolean {
  const hex = dev.split(':').map((part) => Number(part).toString(16).padStart(2, '0'));
  return maps.includes(` ${hex.join(':')} ${ino} `);
}

// ── block devices ───────────────────────────────────────────────────────────────────────────────────────────────────

/** How many bytes a block device has, by `MAJ:MIN`, told without asking it; null where it is gone. */
export function readBlockSize(dev: string): number | null {
  const sectors = readText(`/sys/dev/block/${dev}/size`);
  return sectors === null ? null : Number(sectors) * 512;
}

/** A loop device that something is bound to. */
export interface Loop {
  /** as `/dev/loop0` */
  path: string;
  /** `MAJ:MIN` of it and of its partitions */
  devs: string[];
  /** as whoever bound it sees it; ` (deleted)` may follow */
  backingFile: string;
  /** where it begins in there */
  offsetBytes: number;
  readOnly: boolean;
}

/** The loop devices in use. */
export function listLoops(): Loop[] {
  return readDirectory('/sys/block').flatMap((name) => {
    if (!name.startsWith('loop')) return [];
    const at = `/sys/block/${name}`;
    // only the last line end is the kernel's: a name may hold others
    const backingFile = readText(`${at}/loop/backing_file`)?.replace(/\n$/, '');
    const dev = readText(`${at}/dev`)?.trim();
    if (!backingFile || dev === undefined) return [];
    const devs = [dev, ...listPartitions(at).map((partition) => partition.dev)];
    const offsetBytes = Number(readText(`${at}/loop/offset`) ?? 0);
    return [{ path: `/dev/${name}`, devs, backingFile, offsetBytes, readOnly: readText(`${at}/ro`)?.trim() === '1' }];
  });
}

/** A block device as sysfs names it. */
export interface DeviceNode {
  /** as `sda1`; its node is /dev/NAME */
  name: string;
  /** `MAJ:MIN` */
  dev: string;
  readOnly: boolean;
  /** the devices made on top of it, as `dm-0` or `md0` */
  holders: string[];
}

/** A block device, its partitions, and the disk that it is a partition of. Empty where sysfs does not know it. */
export function readDeviceFamily(dev: string): DeviceNode[] {
  const at = `/sys/dev/block/${dev}`;
  const own = readDeviceNode(at);
  if (!own) return [];
  if (readText(`${at}/partition`) === null) return [own, ...listPartitions(at)];
  const disk = readDeviceNode(`${at}/..`);
  return disk ? [own, disk] : [own];
}

/** The devices that are made on top of others, as device mapper makes them, those furthest above first. */
export function listDevicesAbove(devs: readonly string[]): DeviceNode[] {
  const names = devs.flatMap((dev) => readDirectory(`/sys/dev/block/${dev}/holders`));
  if (names.length === 0) return [];
  const own = [...new Set(names)].flatMap((name) => readDeviceNode(`/sys/class/block/${name}`) ?? []);
  const nodes = own.flatMap((node) => [node, ...listPartitions(`/sys/dev/block/${node.dev}`)]);
  return [...listDevicesAbove(nodes.map(({ dev }) => dev)), ...nodes];
}

/** what sysfs counts in, whatever the sectors of the device are */
export const SECTOR_BYTES = 512;

/** Which sectors of which disk a block device is. Null where sysfs does not know it. */
export function readDeviceRange(dev: string): { disk: string; first: number; sectors: number } | null {
  const at = `/sys/dev/block/${dev}`;
  const sectors = readText(`${at}/size`);
  if (sectors === null) return null;
  const isPartition = readText(`${at}/partition`) !== null;
  const disk = isPartition ? readText(`${at}/../dev`)?.trim() : dev;
  const first = isPartition ? Number(readText(`${at}/start`)) : 0;
  return disk === undefined ? null : { disk, first, sectors: Number(sectors) };
}

function listPartitions(at: string): DeviceNode[] {
  const names = readDirectory(at).filter((name) => readText(`${at}/${name}/partition`) !== null);
  return names.flatMap((name) => readDeviceNode(`${at}/${name}`) ?? []);
}

function readDeviceNode(at: string): DeviceNode | null {
  const dev = readText(`${at}/dev`)?.trim();
  const name = /^DEVNAME=(.+)$/m.exec(readText(`${at}/uevent`) ?? '')?.[1];
  if (dev === undefined || name === undefined) return null;
  return { name, dev, readOnly: readText(`${at}/ro`)?.trim() === '1', holders: readDirectory(`${at}/holders`) };
}

/** Whether a block device, by its name in sysfs as `dm-0`, is read-only. */
export function isDeviceReadOnly(name: string): boolean {
  return readText(`/sys/class/block/${name}/ro`)?.trim() === '1';
}

/** The paths of the files and devices that the system swaps to. */
export function listSwaps(): string[] {
  const lines = (readText('/proc/swaps') ?? '').trimEnd().split('\n').slice(1);
  return lines.map((line) => unescapeOctal(line.split(/\s/)[0] ?? ''));
}

// ── what vanishes while it is looked at is as good as never there ───────────────────────────────────────────────────

const WANTS: ReadonlySet<unknown> = new Set(['EMFILE', 'ENFILE', 'ENOMEM']);

/** Whether something could not be looked at because this process, or the machine, has no descriptor or memory left. */
export function isForWant(error: unknown): boolean {
  return WANTS.has((error as NodeJS.ErrnoException).code);
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}

function readLink(path: string): string | null {
  try {
    return readlinkSync(path);
  } catch {
    return null;
  }
}

function readDirectory(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
