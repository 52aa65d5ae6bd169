/**
 * What the kernel has above the files of vbds: loop devices, and the directories where a file system of a vbd is
 * mounted. Read from the tables of mounts and loop devices only, so nothing waits for a bus.
 *
 *      xvda ──► /dev/loop0 (and its partitions) ──► device mapper ──► mount points        as root
 *           └─► fuse2fs and its kind ─────────────────────────────► mount points        other users
 */
import { listDevicesAbove, listLoops, type Mount, readMounts } from '../../../system/proc.js';
import type { PartitionInfo, VbdInfo } from '../../control/interface.js';
import type { KernelTables } from './careful-path.js';

/** What is above one file of a bus. */
export interface Above {
  /** as `/dev/loop0` */
  readonly loops: readonly string[];
  /** mount points, the first mounted first */
  readonly mounts: readonly string[];
}

export async function readTables(): Promise<KernelTables> {
  return { mounts: await readMounts('self'), loops: listLoops() };
}

/** What is above a file of a bus, in our mount namespace. */
export function aboveFile(path: string, { mounts, loops }: KernelTables): Above {
  const own = loops.filter(({ backingFile }) => backingFile === path);
  const devs = own.flatMap((loop) => loop.devs);
  const mapped = listDevicesAbove(devs);
  const all = new Set([...devs, ...mapped.map(({ dev }) => dev)]);
  // a file system on several devices, as btrfs, has a number of its own, and one of the devices as its source
  const nodes = new Set([...own.map((loop) => loop.path), ...mapped.map(({ name }) => `/dev/${name}`)]);
  const isAbove = (mount: Mount): boolean =>
    all.has(mount.dev) || nodes.has(mount.source) || isByProgram(mount, path) || isOfPartition(mount.source, nodes);
  return {
    loops: own.map((loop) => loop.path),
    mounts: [...new Set(mounts.filter(isAbove).map(({ mountpoint }) => mountpoint))],
  };
}

function isByProgram(mount: Mount, path: string): boolean {
  return mount.type.startsWith('fuse') && mount.source === path && isTrusted(mount);
}

/** Whether the source of a mount is to be believed. Any user can give a FUSE mount any source: only our own tell the truth. */
export function isTrusted({ type, owner }: Mount): boolean {
  return !type.startsWith('fuse') || owner?.uid === process.geteuid?.();
}

/** The disk of a partition's device node: `/dev/loop0` of `/dev/loop0p1`; null if the node is no partition. */
export function diskOfNode(node: string): string | null {
  return /^(.*\d)p\d+$/.exec(node)?.[1] ?? null;
}

function isOfPartition(source: string, nodes: ReadonlySet<string>): boolean {
  const disk = diskOfNode(source);
  return disk !== null && nodes.has(disk);
}

/** What is above a vbd: above its own file, and above its partitions. */
export function aboveVbd({ path, partitions }: VbdInfo, tables: KernelTables): Above {
  const each = [path, ...(partitions ?? []).map((partition) => partition.path)].map((file) => aboveFile(file, tables));
  return { loops: each.flatMap(({ loops }) => loops), mounts: each.flatMap(({ mounts }) => mounts) };
}

/** The loop device that a path of a device node belongs to: itself, or the disk of a partition. */
export function loopOfNode(path: string, { loops }: KernelTables): string | null {
  const found = loops.find((loop) => path === loop.path || isOfPartition(path, new Set([loop.path])));
  return found?.path ?? null;
}

/** A vbd with what is above it; `mounts` and `loops` of the vbd include those of its partitions. */
export type VbdAbove = Omit<VbdInfo, 'partitions'> & Above & { readonly partitions: (PartitionInfo & Above)[] | null };

export function withAbove(vbd: VbdInfo, tables: KernelTables): VbdAbove {
  const partitions = vbd.partitions?.map((each) => ({ ...each, ...aboveFile(each.path, tables) })) ?? null;
  return { ...vbd, ...aboveVbd(vbd, tables), partitions };
}
