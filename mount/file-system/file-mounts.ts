/** The mounts of files, as the kernel's tables show them: by loop devices and by FUSE programs. No state is kept. */
import { type Loop, listLoops, type Mount, readMounts } from '../../system/proc.js';
import { diskOfNode, isTrusted } from '../client/finding/above.js';

/** A mount, and the file below it. */
export interface FileMount extends Mount {
  /** the file with the file system; for other mounts their source */
  readonly file: string;
  /** the loop device; null for a FUSE program */
  readonly loop: string | null;
}

/** The mounts in our mount namespace that have a file below them. */
export async function listFileMounts(): Promise<FileMount[]> {
  const loops = listLoops();
  return (await readMounts('self')).filter(isTrusted).map((mount) => withFile(mount, loops));
}

/** The mount may be of a partition of the loop device. */
function withFile(mount: Mount, loops: readonly Loop[]): FileMount {
  // the device number identifies the loop device, but some file systems (btrfs) have a number of their own
  const loop = loops.find(({ path, devs }) => devs.includes(mount.dev) || isNodeOf(mount.source, path, devs));
  return { ...mount, file: loop?.backingFile ?? mount.source, loop: loop?.path ?? null };
}

function isNodeOf(source: string, path: string, devs: readonly string[]): boolean {
  return source === path || diskOfNode(source) === path || devs.some((dev) => source === `/dev/block/${dev}`);
}
