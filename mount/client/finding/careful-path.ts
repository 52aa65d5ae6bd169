/**
 * Looks at paths that users name, without a call on a file system that may hang: a dead or silent bus, NFS, or a disk
 * that lies on a bus. The kernel's tables tell which file system a path is on.
 *
 *      /srv/link ──► /srv on ext4: readlink ──► /mnt/nfs/disk.img: on NFS, so a child process asks, with a time limit
 */
import { readlinkSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { answersFromMemory, deviceName, type Loop, locate, type Mount } from '../../../system/proc.js';

/** What the kernel says about mounts and loop devices at one moment. */
export interface KernelTables {
  readonly mounts: readonly Mount[];
  readonly loops: readonly Loop[];
}

/** the limit of the kernel for symbolic links in one path */
const MOST_LINKS = 40;
/** how long a file system that may hang has to answer */
const LIMIT_MS = 2_000;

/** file systems that neither have a disk nor a server */
const WITHOUT_DISK: ReadonlySet<string> = new Set('devtmpfs devpts proc sysfs squashfs rootfs'.split(' '));

/**
 * The path without symbolic links, as far as they can be read without a risk. A mount point is not asked, nor anything
 * below a mount that may hang.
 */
export function carefulPath(path: string, tables: KernelTables): string {
  const rest = resolve(path).split('/');
  let done = '/';
  for (let links = 0; rest.length > 0; ) {
    const name = rest.shift() as string;
    if (name === '..') done = dirname(done);
    if (name === '' || name === '.' || name === '..') continue;
    const at = join(done, name);
    const target = links < MOST_LINKS && !mayHang(done, tables) && !isMountPoint(at, tables) ? readLink(at) : null;
    if (target === null) {
      done = at;
      continue;
    }
    links += 1;
    if (target.startsWith('/')) done = '/';
    rest.unshift(...target.split('/'));
  }
  return done;
}

export function isMountPoint(path: string, { mounts }: KernelTables): boolean {
  return mounts.some(({ mountpoint }) => mountpoint === path);
}

/** Whether a call on a file in a directory may block: its file system has a server, or its disk is on a FUSE mount. */
function mayHang(directory: string, { mounts, loops }: KernelTables): boolean {
  const at = locate([...mounts], directory);
  if (at === null) return false;
  if (!answersFromMemory(at.type) && !WITHOUT_DISK.has(at.type)) return true;
  const loop = loops.find(({ devs }) => devs.includes(at.dev));
  return loop !== undefined && locate([...mounts], loop.backingFile)?.type.startsWith('fuse') === true;
}

function readLink(path: string): string | null {
  try {
    return readlinkSync(path);
  } catch {
    // not a link, or not there
    return null;
  }
}

/** What a path leads to. */
export interface FoundFile {
  /** `MAJ:MIN:INODE`, or `block:MAJ:MIN`: as in bus.json */
  readonly identity: string;
  readonly isDirectory: boolean;
}

/** The file at a path; null if there is none, or if its file system does not answer in time. */
export async function findFile(path: string, tables: KernelTables): Promise<FoundFile | null> {
  const real = carefulPath(path, tables);
  if (isMountPoint(real, tables)) return null;
  return mayHang(dirname(real), tables) ? await askAnother(real) : statHere(real);
}

function statHere(path: string): FoundFile | null {
  try {
    const stats = statSync(path, { bigint: true });
    const identity = stats.isBlockDevice()
      ? `block:${deviceName(stats.rdev)}`
      : `${deviceName(stats.dev)}:${stats.ino}`;
    return { identity, isDirectory: stats.isDirectory() };
  } catch {
    return null;
  }
}

/** Lets a child process ask: this process could not be ended while it waits for a file system. */
async function askAnother(path: string): Promise<FoundFile | null> {
  const { execFile } = await import('node:child_process');
  const options = { cwd: '/', timeout: LIMIT_MS, killSignal: 'SIGKILL' as const, env: { ...process.env, LC_ALL: 'C' } };
  return await new Promise((done) => {
    execFile('stat', ['-L', '-c', '%d %i %t %T %F', '--', path], options, (error, stdout) => {
      const [dev = '', ino = '', major = '', minor = '', ...kind] = stdout.trim().split(' ');
      if (error !== null || ino === '') return done(null);
      const isDirectory = kind.join(' ') === 'directory';
      if (kind[0] !== 'block') return done({ identity: `${deviceName(BigInt(dev))}:${ino}`, isDirectory });
      done({ identity: `block:${Number.parseInt(major, 16)}:${Number.parseInt(minor, 16)}`, isDirectory });
    });
  });
}
