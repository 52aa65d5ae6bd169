/**
 * Programs by which an ordinary user can mount the file system in a file: with FUSE, without a loop device.
 */
import { FusetapError } from '../../drivers/errors.js';
import { isInstalled, runTool, type TellRemark, type TellWait } from './run-tool.js';

export interface FuseProgram {
  readonly program: string;
  /** in Debian */
  readonly packageName: string;
  /** as blkid(8) names them */
  readonly types: readonly string[];
  readonly canWrite: boolean;
  /** options that it always needs */
  readonly options: readonly string[];
}

/** All of them take `IMAGE DIR -o OPTIONS` and go to the background when the file system is mounted. */
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
];

/** The type of the file system in a file, according to blkid(8). @throws FusetapError USAGE if blkid finds none */
export async function probeType(file: string): Promise<string> {
  const hint = 'name it with --type, or choose a partition with --partition N';
  const what = `cannot tell the file system of ${file}`;
  const text = await runTool('blkid', ['-p', '-o', 'value', '-s', 'TYPE', file], what, { hint }).catch(
    (error: unknown) => {
      // blkid fails without a message if it finds nothing
      if (error instanceof FusetapError && error.code === 'FAILED') return '';
      throw error;
    },
  );
  const type = text.trim();
  if (type === '') throw new FusetapError('USAGE', `${what}: blkid finds none that it knows`, { hint, path: file });
  return type;
}

/**
 * The program for a type of file system.
 * @throws FusetapError UNSUPPORTED; the hint says what to install, or what else works
 */
export async function findFuseProgram(type: string, write: boolean): Promise<FuseProgram> {
  const found = FUSE_PROGRAMS.find(({ types }) => types.includes(type));
  if (found === undefined) {
    throw new FusetapError('UNSUPPORTED', `only root can mount ${type}: fusetap knows no program for other users`, {
      hint: 'run it as root; or use fusetap attach, then debugfs, mtools, qemu or guestfish on the vbd',
    });
  }
  const { program, packageName, canWrite } = found;
  if (!(await isInstalled(program))) {
    throw new FusetapError('UNSUPPORTED', `mounting ${type} without root needs ${program}, which is not installed`, {
      hint: `apt install ${packageName}, or run it as root`,
    });
  }
  if (write && !canWrite) {
    throw new FusetapError('USAGE', `${type} is read-only`, { hint: 'mount it with --read-only' });
  }
  return found;
}

/** Mounts. The source of the mount is the file: unmountImage finds the vbd by it. */
export async function mountByFuse(
  { program, options }: FuseProgram,
  { file, directory, readOnly, options: asked, waits, remarks }: FuseMount,
): Promise<void> {
  // for libfuse a comma ends an option, unless it is escaped
  const source = `fsname=${file.replace(/[\\,]/g, '\\$&')}`;
  const words = [source, ...(readOnly ? ['ro'] : []), ...options, ...asked];
  const what = `cannot mount ${file} on ${directory}`;
  await runTool(program, [file, directory, '-o', words.join(',')], what, { waits, remarks });
}

export interface FuseMount {
  readonly file: string;
  readonly directory: string;
  readonly readOnly: boolean;
  readonly options: readonly string[];
  readonly waits?: TellWait | undefined;
  readonly remarks?: TellRemark | undefined;
}
