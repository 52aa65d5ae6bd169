/**
 * Whether a file system may be mounted, or is mounted or in use already. Two mounts of one file system damage it, unless
 * both only read; so do two writers of which one has the whole disk.
 */
import { stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError, type Holder } from '../../drivers/errors.js';
import { named } from '../../drivers/quote.js';
import { deviceName, listOpenFiles } from '../../system/proc.js';
import { describeHolders } from '../client/index.js';
import type { VbdInfo } from '../control/interface.js';
import { findHolders } from '../holders/find-holders.js';
import { findBusOfPid } from '../runtime/bus-record.js';
import type { Part } from './choose-partition.js';
import { type FileMount, listFileMounts } from './file-mounts.js';

/** a program or loop device of a mount that has just gone is gone within this time */
const PASSING_MS = 5_000;
const POLL_MS = 100;

export interface MountWish {
  readonly vbd: VbdInfo;
  readonly part: Part;
  /** its real path */
  readonly directory: string;
  readonly readOnly: boolean;
}

/**
 * Looks who uses the bytes of a file system.
 * @returns the mount, if exactly this is mounted on the directory already; null if it may be mounted
 * @throws FusetapError BUSY if it is mounted elsewhere, or a program may write to it
 */
export async function findSameMount(wish: MountWish, runtimeDir: string): Promise<FileMount | null> {
  const files = overlapping(wish);
  const begun = performance.now();
  for (;;) {
    const mounts = (await listFileMounts()).filter(({ file }) => files.includes(file));
    const same = mounts.findLast(({ file, mountpoint }) => file === wish.part.file && mountpoint === wish.directory);
    if (same !== undefined) return same;
    refuseConflict(wish, mounts);
    const writers = await findOtherWriters(files, mounts, runtimeDir);
    if (writers.length === 0) return null;
    if (performance.now() - begun > PASSING_MS) {
      // a mount that we do not see is in another mount namespace
      const isElsewhere = writers.some(({ mount }) => mount !== undefined);
      const hint = isElsewhere
        ? 'unmount it in its mount namespace, for example a container, first'
        : 'close it there first';
      throw busy(wish, { why: `is in use by ${describeHolders(writers)}`, hint, holders: writers });
    }
    await delay(POLL_MS);
  }
}

/** The files of the bus that have bytes of the part. The partitions of a disk share no bytes. */
function overlapping({ vbd, part }: MountWish): string[] {
  if (part.number !== null) return [vbd.path, part.file];
  return [vbd.path, ...(vbd.partitions ?? []).map(({ path }) => path)];
}

function refuseConflict(wish: MountWish, mounts: readonly FileMount[]): void {
  const other = mounts.find(({ readOnly }) => !(readOnly && wish.readOnly));
  if (other === undefined) return;
  const at = named(other.mountpoint);
  throw busy(wish, {
    why: `is mounted on ${at} already`,
    hint: `fusetap umount ${at} first, or mount it read-only in both places`,
    holders: [{ mount: other.mountpoint, ...(other.loop !== null && { loop: other.loop }) }],
  });
}

interface Conflict {
  readonly why: string;
  readonly hint: string;
  readonly holders: readonly Holder[];
}

function busy({ vbd, part }: MountWish, { why, hint, holders }: Conflict): FusetapError {
  const disk = named(vbd.image ?? vbd.path);
  const what = part.number === null ? disk : `partition ${part.number} of ${disk}`;
  return new FusetapError('BUSY', `${what} ${why}`, { hint, holders: [...holders] });
}

/** Who may write to the files, apart from the mounts that are known. */
async function findOtherWriters(
  files: readonly string[],
  mounts: readonly FileMount[],
  runtimeDir: string,
): Promise<Holder[]> {
  const found = (await Promise.all(files.map((file) => findVbdWriters(file, runtimeDir).catch(() => [])))).flat();
  const loops = new Set(mounts.map(({ loop }) => loop));
  const byFuse = new Set(mounts.flatMap(({ loop, file }) => (loop === null ? [file] : [])));
  const isOfMount = ({ pid, bus, loop }: Holder): boolean => {
    if (loop !== undefined) return loops.has(loop);
    return pid !== undefined && bus === undefined && byFuse.size > 0 && isFuseProgram(pid);
  };
  return found.filter((holder) => !isOfMount(holder));
}

/** The users, apart from this process, that have the file of a vbd or partition open for writing. */
async function findVbdWriters(path: string, runtimeDir: string): Promise<Holder[]> {
  const { dev, ino } = await stat(path, { bigint: true });
  const mountDev = deviceName(dev);
  const describePid = (pid: number) => findBusOfPid(runtimeDir, pid, `${mountDev}:${ino}`);
  return findHolders({ mountDev, ino, path }, { excludePids: [process.pid], describePid, onlyWriters: true });
}

function isFuseProgram(pid: number): boolean {
  return listOpenFiles(pid).some(({ path }) => path === '/dev/fuse');
}
