/**
 * Programs that mount the file system in a file with FUSE, without a loop device: for ordinary users, and for root if the
 * kernel does not know the file system.
 */
import { FusetapError } from '../../../drivers/errors.js';
import { isInstalled, runTool, type TellRemark, type TellWait } from './run-tool.js';

export interface FuseProgram {
  readonly program: string;
  /** in Debian */
  readonly packageName: string;
  /** as blkid(8) names them */
  readonly types: readonly string[];
  readonly canWrite: boolean;
  /** words before the image */
  readonly flags?: readonly string[];
  /** options that it always needs */
  readonly options: readonly string[];
  /** it takes no fsname=, and shows the path of the image as the source of the mount */
  readonly namesSourceItself?: true;
  /** it does not work for other users */
  readonly isForRoot?: true;
  /** what it prints is not for users, even if it succeeds */
  readonly isTalkative?: true;
}

/**
 * All of them take `FLAGS IMAGE DIR -o OPTIONS` and go to the background when the file system is mounted. exfat-fuse is
 * not here: it mounts block devices only.
 */
export const FUSE_PROGRAMS: readonly FuseProgram[] = [
  {
    program: 'fuse2fs',
    packageName: 'fuse2fs',
    types: ['ext2', 'ext3', 'ext4'],
    canWrite: true,
    // files in the image may belong to any user; a user who may write the image may write them all
    options: ['fakeroot'],
  },
  { program: 'squashfuse', packageName: 'squashfuse', types: ['squashfs'], canWrite: false, options: [] },
  // fusefat can write, but it makes files share clusters
  { program: 'fusefat', packageName: 'fusefat', types: ['vfat'], canWrite: false, options: [], isTalkative: true },
  // -n: do not write ~/.mtab.fuseiso
  {
    program: 'fuseiso',
    packageName: 'fuseiso',
    types: ['iso9660'],
    canWrite: false,
    flags: ['-n'],
    options: [],
  },
  {
    program: 'ntfs-3g',
    packageName: 'ntfs-3g',
    types: ['ntfs'],
    canWrite: true,
    // its default options let other users in, and hide what the directory has
    options: ['no_def_opts', 'silent'],
    namesSourceItself: true,
    // it is set-user-ID, and the kernel does not let such a process into the bus of a user
    isForRoot: true,
  },
];

/** The program for a type of file system, whether it is installed or not. */
export function fuseProgramFor(type: string): FuseProgram | undefined {
  return FUSE_PROGRAMS.find(({ types }) => types.includes(type));
}

/**
 * The program for a type of file system, if it is installed.
 * @throws FusetapError UNSUPPORTED; the hint says what to install, or what else works
 */
export async function findFuseProgram(type: string, isRoot = process.geteuid?.() === 0): Promise<FuseProgram> {
  const found = fuseProgramFor(type);
  if (found === undefined || (found.isForRoot && !isRoot)) throw noProgram(type, isRoot);
  const { program, packageName } = found;
  if (await isInstalled(program)) return found;
  const message = `mounting ${type} without ${isRoot ? 'loop devices' : 'root'} needs ${program}, which is not installed`;
  const hint = isRoot ? `apt install ${packageName}` : `apt install ${packageName}, or run it as root`;
  throw new FusetapError('UNSUPPORTED', message, { hint });
}

function noProgram(type: string, isRoot: boolean): FusetapError {
  const tools = 'fusetap attach, then debugfs, mtools, qemu or guestfish on the vbd';
  if (!isRoot) {
    return new FusetapError('UNSUPPORTED', `only root can mount ${type}: fusetap knows no program for other users`, {
      hint: `run it as root; or use ${tools}`,
    });
  }
  return new FusetapError('UNSUPPORTED', `mounting ${type} needs loop devices, and there are none here`, {
    hint: `give the container /dev/loop-control and /dev/loop*, or use ${tools}`,
  });
}

/** Mounts. The source of the mount is the file: unmountImage finds the vbd by it. */
export async function mountByFuse(
  { program, flags = [], options, namesSourceItself }: FuseProgram,
  { file, directory, readOnly, options: asked, waits, remarks }: FuseMount,
): Promise<void> {
  // for libfuse a comma ends an option, unless it is escaped
  const source = namesSourceItself ? [] : [`fsname=${file.replace(/[\\,]/g, '\\$&')}`];
  const words = [...source, ...(readOnly ? ['ro'] : []), ...options, ...asked];
  const what = `cannot mount ${file} on ${directory}`;
  await runTool(program, [...flags, file, directory, '-o', words.join(',')], what, { waits, remarks });
}

export interface FuseMount {
  readonly file: string;
  readonly directory: string;
  readonly readOnly: boolean;
  readonly options: readonly string[];
  readonly waits?: TellWait | undefined;
  readonly remarks?: TellRemark | undefined;
}
