/**
 * Processes, mounts and block devices as /proc and /sys show them: reading and parsing only.
 *
 * No function here calls stat(2) on a path or opens a file of another file system, so none waits for a disk or a FUSE
 * server. Files of many processes are read synchronously, because there are thousands of them. The files of a stuck
 * process would block the reader, so stuck processes are found first and left out (stuck-processes.ts). Files whose
 * reading takes a lock that others keep for longer (maps, mountinfo) are read asynchronously.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { findStuck } from './stuck-processes.js';
import { within } from './within.js';

/** how long a loop over processes may block the event loop before it yields */
const TURN_MS = 5;
/** limit for reading the maps of a process: the read never ends if the process is stuck with its memory locked */
const MAPS_PATIENCE_MS = 1_000;

/** `MAJ:MIN` in decimal, as in mountinfo and sysfs, of a device number encoded as by stat(2) and the loop driver. */
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
  /** the directory of the file system that is mounted; `/` is all of it */
  root: string;
  mountpoint: string;
  type: string;
  /** a device node, or any word */
  source: string;
  /** whether the file system itself is mounted read-only; false for a read-only bind mount of a writable file system */
  readOnly: boolean;
  /** the user and group that a FUSE file system belongs to; null for other types */
  owner: { uid: number; gid: number } | null;
}

export function parseMountinfo(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split('\n')) {
    // a path cannot contain the separator: spaces in paths are written as \040
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

/** FUSE shows the owner of the mount as `user_id=N,group_id=N`; other types show no owner. */
function readOwner(options: string): Mount['owner'] {
  const [, uid, gid] = /(?:^|,)user_id=(\d+),group_id=(\d+)(?:,|$)/.exec(options) ?? [];
  return uid === undefined ? null : { uid: Number(uid), gid: Number(gid) };
}

// the kernel escapes only space, tab, line end, backslash and # this way
const unescapeOctal = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));

/** The mounts that a process sees; none if it is gone or we may not look at it. */
export async function readMounts(pid: number | 'self'): Promise<Mount[]> {
  return parseMountinfo(await readFile(`/proc/${pid}/mountinfo`, 'utf8').catch(() => ''));
}

/**
 * The uppermost mount on a directory in our mount namespace. Found in the kernel's mount table, because a system call
 * on the mount itself could block for ever.
 */
export async function mountOn(directory: string): Promise<Mount | undefined> {
  return (await readMounts('self')).findLast(({ mountpoint }) => mountpoint === directory);
}

/** A mount namespace, seen by one of its processes. */
export interface MountNamespace {
  /** a process in the namespace: paths of the namespace are reachable below /proc/PID/root */
  pid: number | 'self';
  mounts: Mount[];
}

/** The mounts of each visible mount namespace, our own first. */
export async function readMountNamespaces(): Promise<Mount[][]> {
  return (await readNamespaces()).map(({ mounts }) => mounts);
}

/** Each visible mount namespace, our own first. */
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

/** A file, named by its file system and its path in there, which is the same for all bind mounts. */
export interface Location {
  /** `MAJ:MIN` of the file system */
  dev: string;
  path: string;
  type: string;
  mountpoint: string;
}

/** The file that an absolute path without symbolic links leads to, derived from the mount table only. */
export function locate(mounts: Mount[], path: string): Location | null {
  let best: Mount | null = null;
  for (const mount of mounts) {
    // of two mounts at one place the later one is on top
    if (isBelow(path, mount.mountpoint) && mount.mountpoint.length >= (best?.mountpoint.length ?? 0)) best = mount;
  }
  if (!best) return null;
  const rest = best.mountpoint === '/' ? path : path.slice(best.mountpoint.length);
  const inside = best.root === '/' ? rest : best.root + (rest === '/' ? '' : rest);
  return { dev: best.dev, path: inside === '' ? '/' : inside, type: best.type, mountpoint: best.mountpoint };
}

/** Whether an absolute path is the directory itself or is below it. */
export function isBelow(path: string, directory: string): boolean {
  return directory === '/' || path === directory || path.startsWith(`${directory}/`);
}

// ── processes ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** Whether this process is in a user namespace other than the first one: root has fewer rights there. */
export function isInUserNamespace(map: string = readText('/proc/self/uid_map') ?? ''): boolean {
  // user_namespaces(7): the first namespace maps all ids to themselves
  return map !== '' && !/^\s*0\s+0\s+4294967295\s*$/.test(map);
}

/**
 * The pids of all processes except those that are stuck (stuck-processes.ts). Yields to other work of the event loop in
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

/** Whether we may look at the files of a process: false for a kernel thread, a zombie, and processes of other users. */
export function mayInspect(pid: number): boolean {
  return readLink(`/proc/${pid}/exe`) !== null;
}

/** The name of a process as `ps -o comm` shows it; null if it is gone. Does not read cmdline, because that can hang. */
export function readCommand(pid: number): string | null {
  return readText(`/proc/${pid}/comm`)?.trimEnd() ?? null;
}

/**
 * The start time of a process in ticks since boot. Together with the pid it identifies the process until the next boot.
 * Null if the process is gone.
 * @throws if it cannot be read now because this process or the machine is out of descriptors or memory
 */
export function readStartTime(pid: number): string | null {
  try {
    const fields = statFields(readFileSync(`/proc/${pid}/stat`, 'utf8'));
    // a zombie stays until somebody reaps it: in a container perhaps for ever
    return fields[0] === 'Z' ? null : (fields[19] ?? null);
  } catch (error) {
    if (isOutOfResources(error)) throw error;
    return null;
  }
}

/** Whether a thread is in uninterruptible sleep (state D): only SIGKILL can end it, or nothing. */
export function isThreadBlocked(pid: number, tid: number): boolean {
  return statFields(readText(`/proc/${pid}/task/${tid}/stat`) ?? '')[0] === 'D';
}

/** The threads of a process in uninterruptible sleep: each with a number that is another one when it sleeps anew. */
export function blockedThreads(pid: number): Set<string> {
  const blocked = readDirectory(`/proc/${pid}/task`).filter((tid) => isThreadBlocked(pid, Number(tid)));
  return new Set(
    blocked.map((tid) => {
      const status = readText(`/proc/${pid}/task/${tid}/status`) ?? '';
      return `${tid} ${/^voluntary_ctxt_switches:\s*(\d+)$/m.exec(status)?.[1]}`;
    }),
  );
}

/** Whether a process is stopped by a signal or a debugger. */
export function isStopped(pid: number): boolean {
  return ['T', 't'].includes(statFields(readText(`/proc/${pid}/stat`) ?? '')[0] ?? '');
}

/**
 * Whether the process with that pid and start time still runs. A zombie does not run. If it cannot be found out now
 * (out of descriptors or memory), the answer is true.
 */
export function isRunning(pid: number, startTime: string): boolean {
  try {
    const fields = statFields(readFileSync(`/proc/${pid}/stat`, 'utf8'));
    return fields[0] !== 'Z' && fields[0] !== 'X' && fields[19] === startTime;
  } catch (error) {
    return isOutOfResources(error);
  }
}

/**
 * The fields of proc_pid_stat(5) that follow the name. The name is in brackets and may contain any character. Field 0
 * is the state, 11 and 12 are utime and stime, 19 is starttime.
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

/** The files that a process has open, including O_PATH, without pipes, sockets and the like. */
export function listOpenFiles(pid: number | 'self'): OpenFile[] {
  return readDirectory(`/proc/${pid}/fd`).flatMap((fd) => {
    const path = readLink(`/proc/${pid}/fd/${fd}`);
    return path?.startsWith('/') ? [{ fd: Number(fd), path }] : [];
  });
}

/** A lock of an open file description; see proc_locks(5). */
export interface FileLock {
  kind: 'OFDLCK' | 'POSIX' | 'FLOCK' | 'LEASE';
  write: boolean;
  /** `MAJ:MIN:INODE` as the kernel prints it: the device numbers in hex */
  file: string;
  /** the first and the last byte of the range; `end` is Infinity for a lock up to EOF */
  start: number;
  end: number;
}

export interface FdInfo {
  mountId: number;
  /** null before Linux 5.14 */
  ino: string | null;
  /** open for writing */
  isWritable: boolean;
  locks: FileLock[];
}

export function parseFdinfo(text: string): FdInfo {
  const mountId = Number(MOUNT_ID_LINE.exec(text)?.[1]);
  const ino = INO_LINE.exec(text)?.[1] ?? null;
  // the lowest digit has the access mode: 0 is O_RDONLY
  const isWritable = /[12]$/.test(FLAGS_LINE.exec(text)?.[1] ?? '');
  // thousands of these are parsed in a row, and few show a lock
  if (!text.includes('\nlock:')) return { mountId, ino, isWritable, locks: [] };
  const locks = [...text.matchAll(LOCK_LINE)].map(
    ([, kind, access, file, start, end]): FileLock => ({
      kind: kind as FileLock['kind'],
      write: access === 'WRITE',
      file: file as string,
      start: Number(start),
      end: end === 'EOF' ? Number.POSITIVE_INFINITY : Number(end),
    }),
  );
  return { mountId, ino, isWritable, locks };
}

const MOUNT_ID_LINE = /^mnt_id:\s*(\d+)$/m;
// octal
const FLAGS_LINE = /^flags:\s*([0-7]+)$/m;
const INO_LINE = /^ino:\s*(\d+)$/m;
// as `lock:	1: OFDLCK ADVISORY  READ -1 00:1f:123 301 301`
const LOCK_LINE = /^lock:\s+\d+: (OFDLCK|POSIX|FLOCK|LEASE)\s+\w+\s+(\w+)\s+-?\d+ (\w+:\w+:\d+) (\d+) (\d+|EOF)$/gm;

/** The kernel's information about an open file (fdinfo); null if it was closed meanwhile. */
export function readFdinfo(pid: number | 'self', fd: number): FdInfo | null {
  const text = readText(`/proc/${pid}/fdinfo/${fd}`);
  return text === null ? null : parseFdinfo(text);
}

/**
 * The type of the file system of a descriptor of ours, as `ext4`; null if its mount is not visible. Found in the mount
 * table, without a call to the file system.
 */
export function fileSystemOf(fd: number): string | null {
  const id = readFdinfo('self', fd)?.mountId;
  return parseMountinfo(readText('/proc/self/mountinfo') ?? '').find((mount) => mount.id === id)?.type ?? null;
}

const FROM_MEMORY: ReadonlySet<string> = new Set(
  'ext2 ext3 ext4 xfs btrfs tmpfs ramfs f2fs bcachefs vfat exfat ntfs3 jfs hfsplus overlay'.split(' '),
);

/**
 * Whether a file system of that type answers fstat(2) from memory, with times of this kernel's clock. Local file
 * systems do, even if their disk hangs. Those that ask a server (NFS, SMB, FUSE, 9P, Ceph, …) may hang.
 */
export function answersFromMemory(fileSystem: string | null): boolean {
  return fileSystem !== null && FROM_MEMORY.has(fileSystem);
}

const mapsUnderWay = new Map<number, Promise<string>>();

/**
 * /proc/PID/maps; empty if it cannot be read in time. If the process hangs with its memory locked, the read and the
 * thread that does it hang too. So there is never more than one read for a process, and callers wait for it only a
 * short time.
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

/** Whether the text of a maps file shows a mapping of the file. `dev` is `MAJ:MIN` in decimal. */
export function mapsShow(maps: string, dev: string, ino: string): boolean {
  const hex = dev.split(':').map((part) => Number(part).toString(16).padStart(2, '0'));
  return maps.includes(` ${hex.join(':')} ${ino} `);
}

// ── block devices ───────────────────────────────────────────────────────────────────────────────────────────────────

/** The size in bytes of the block device `MAJ:MIN`, read from sysfs, not from the device; null if it is gone. */
export function readBlockSize(dev: string): number | null {
  const sectors = readText(`/sys/dev/block/${dev}/size`);
  return sectors === null ? null : Number(sectors) * 512;
}

/** A loop device with a backing file. */
export interface Loop {
  /** as `/dev/loop0` */
  path: string;
  /** `MAJ:MIN` of the device and of its partitions */
  devs: string[];
  /** its path as the process that bound it saw it; ` (deleted)` may follow */
  backingFile: string;
  /** the offset of the device in the backing file */
  offsetBytes: number;
  readOnly: boolean;
}

/** The loop devices in use. */
export function listLoops(): Loop[] {
  return readDirectory('/sys/block').flatMap((name) => {
    if (!name.startsWith('loop')) return [];
    const at = `/sys/block/${name}`;
    // the kernel adds only the last line end: the name itself may contain others
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
  /** the devices on top of it, as `dm-0` or `md0` */
  holders: string[];
}

/**
 * A block device with its partitions, or with its disk if it is a partition. Empty if sysfs does not know the device.
 */
export function readDeviceFamily(dev: string): DeviceNode[] {
  const at = `/sys/dev/block/${dev}`;
  const own = readDeviceNode(at);
  if (!own) return [];
  if (readText(`${at}/partition`) === null) return [own, ...listPartitions(at)];
  const disk = readDeviceNode(`${at}/..`);
  return disk ? [own, disk] : [own];
}

/** The devices on top of the given ones, for instance of device mapper, the uppermost first. */
export function listDevicesAbove(devs: readonly string[]): DeviceNode[] {
  const names = devs.flatMap((dev) => readDirectory(`/sys/dev/block/${dev}/holders`));
  if (names.length === 0) return [];
  const own = [...new Set(names)].flatMap((name) => readDeviceNode(`/sys/class/block/${name}`) ?? []);
  const nodes = own.flatMap((node) => [node, ...listPartitions(`/sys/dev/block/${node.dev}`)]);
  return [...listDevicesAbove(nodes.map(({ dev }) => dev)), ...nodes];
}

/** the unit of sizes in sysfs, whatever the sector size of the device is */
export const SECTOR_BYTES = 512;

/** The sector range of a disk that a block device covers. Null if sysfs does not know the device. */
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

/** Whether a block device, named as in sysfs (`dm-0`), is read-only. */
export function isDeviceReadOnly(name: string): boolean {
  return readText(`/sys/class/block/${name}/ro`)?.trim() === '1';
}

/** The paths of the system's swap files and swap devices. */
export function listSwaps(): string[] {
  const lines = (readText('/proc/swaps') ?? '').trimEnd().split('\n').slice(1);
  return lines.map((line) => unescapeOctal(line.split(/\s/)[0] ?? ''));
}

/** How many processes the kernel has killed because memory was short, since it booted; null if that cannot be read. */
export function readMemoryKills(): number | null {
  const found = /^oom_kill (\d+)$/m.exec(readText('/proc/vmstat') ?? '');
  return found === null ? null : Number(found[1]);
}

// ── a file that vanishes while it is read counts as missing ─────────────────────────────────────────────────────────

const OUT_OF_RESOURCES: ReadonlySet<unknown> = new Set(['EMFILE', 'ENFILE', 'ENOMEM']);

/** Whether a call failed because this process or the machine is out of descriptors or memory. */
export function isOutOfResources(error: unknown): boolean {
  return OUT_OF_RESOURCES.has((error as NodeJS.ErrnoException).code);
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
