/**
 * Rule 8: who may share an image. A claim is a set of locks on the image's open file description. So it always ends
 * with its process, and fusetap, QEMU and other programs can test for it.
 *
 *      byte 300 (r), 301 (w), 302 (w!)   fusetap's own marks
 *      byte 100+i   permission i is used      ┐ QEMU's image locks (its block/file-posix.c): i is 0 consistent read,
 *      byte 200+i   permission i is not shared┘ 1 write, 2 write unchanged, 3 resize
 *
 * All are read locks of the open file description, which never exclude each other: what counts is that a byte is
 * locked. A new claim tests the opposite bytes under flock(LOCK_EX) on the image, so that test and locking are one step
 * among fusetap processes. QEMU does not take the flock, but it tests after it has locked. So the test is repeated
 * after our own locking, and of two claims at the same time at least one sees the other.
 */
import { closeSync, fstatSync } from 'node:fs';
import { type ErrorDetails, FusetapError, type Holder } from '../../drivers/errors.js';
import { named } from '../../drivers/quote.js';
import {
  E,
  errnoName,
  flockRelease,
  isRangeLocked,
  lockRangeShared,
  SystemCallError,
  tryFlockExclusive,
  unlockRange,
} from '../../system/libc.js';
import {
  deviceName,
  type FileLock,
  listLoops,
  readDeviceFamily,
  readDeviceRange,
  readFdinfo,
} from '../../system/proc.js';
import { until } from '../../system/until.js';
import { type BusProcess, describeHolders, findLockHolders } from '../holders/find-holders.js';
import { awaitNoCopies, LEASE_BYTE, SHARED_WRITER_BYTE } from './copy-lease.js';
import {
  type CommonPlace,
  conflictingMode,
  isOfRange,
  lockRange,
  openCommonPlace,
  openExclusively,
  openNode,
  RANGE_BYTES,
  unlockDeviceRange,
} from './device-claim.js';
import { findImageUsers, type ImageUser } from './kernel-users.js';
import type { Mode } from './mode.js';
import type { OpenedImage } from './open-image.js';

const MARK: Record<Mode, number> = { r: 300, w: 301, 'w!': SHARED_WRITER_BYTE };
/** locked for a moment to find out the name of the file in /proc; has no other meaning */
const PROBE_BYTE = 399;
/** never locked by programs that use these bytes: a lock on it is a lock on the whole file */
const UNUSED_BYTE = 398;

const FLOCK_PATIENCE_MS = 5_000;
const FLOCK_RETRY_MS = 20;

/** The bytes that a mode locks, and those that nobody else may have locked. */
interface LockPlan {
  take: number[];
  /** by byte: the text that follows the image's name if somebody has it locked */
  refuse: Map<number, string>;
}

const [READ, WRITE, WRITE_UNCHANGED, RESIZE] = [0, 1, 2, 3];
/** the texts if somebody uses a permission, or does not share it */
const HELD = ['is read by', 'is open for writing in', 'must stay unchanged for', 'may be resized by'];
const UNSHARED = [
  'is locked against reading by',
  'is locked against writing by',
  'is locked against changes by',
  'is locked against resizing by',
];

const PLANS: Record<Mode, LockPlan> = {
  r: plan('r', { needs: [READ], refuses: [WRITE, RESIZE], marks: ['w'] }),
  w: plan('w', {
    needs: [READ, WRITE, RESIZE],
    refuses: [WRITE, RESIZE, WRITE_UNCHANGED, READ],
    marks: ['r', 'w', 'w!'],
  }),
  'w!': plan('w!', { needs: [], refuses: [], marks: [] }),
};

function plan(mode: Mode, rule: { needs: number[]; refuses: number[]; marks: Mode[] }): LockPlan {
  const { needs, refuses, marks } = rule;
  return {
    take: [...needs.map((i) => 100 + i), ...refuses.map((i) => 200 + i), MARK[mode]],
    // our own marks first: their texts say more than those of the QEMU locks that come with them
    refuse: new Map([
      ...(mode === 'w!' ? [] : [[UNUSED_BYTE, 'is locked (fcntl) by'] as [number, string]]),
      ...marks.map((held): [number, string] => [MARK[held], `is attached with mode ${held} by`]),
      ...refuses.map((i): [number, string] => [100 + i, HELD[i] as string]),
      ...needs.map((i): [number, string] => [200 + i, UNSHARED[i] as string]),
    ]),
  };
}

type ClaimedImage = Pick<OpenedImage, 'fd' | 'path' | 'realPath' | 'dev' | 'ino' | 'kind' | 'rdev'>;

export interface Claim {
  readonly mode: Mode;
  /** Claims the sectors that a block device has got since. @throws FusetapError BUSY if somebody uses them */
  grow(): void;
  /**
   * Claims an image of mode `r` for writing too. There is no moment at which it is not claimed.
   * @param isOwn tells the user by which it is claimed already from the others, for the message
   * @throws FusetapError BUSY, with the other users of the image; UNSUPPORTED for a partition or a loop device. The claim is
   *   as before then
   */
  raise(isOwn: ClaimOptions['isOwn']): Promise<void>;
  /** Ends `raise`. */
  lower(): void;
  /** Releases the locks. Do not call it after closing the image's descriptor, which releases them too. */
  release(): void;
}

/** Finds the bus and vbd of a process that uses the image, for the message. */
export type DescribePid = (pid: number, image: ClaimedImage) => BusProcess | null | Promise<BusProcess | null>;

export interface ClaimOptions {
  describePid?: DescribePid;
  /** users that are not named in messages; default: none */
  isOwn?: ((holder: Holder) => boolean) | undefined;
  /** whether a claim is allowed beside that of a user, although their modes conflict; default: no */
  mayShareWith?: ((holder: Holder) => boolean | Promise<boolean>) | undefined;
  /** how long to wait for the flock of another process; default: 5 s */
  patienceMs?: number;
}

/**
 * Claims an image for a mode, or throws as rule 8 says. Mode `w!` only sets its mark and waits until no server writes
 * the image without the lock of the file (copy-lease.ts).
 * @param image open for writing too, unless the mode is `r`
 * @throws FusetapError BUSY, with the users of the image; UNSUPPORTED if the file system has no locks
 */
export async function claimImage(image: ClaimedImage, mode: Mode, options: ClaimOptions = {}): Promise<Claim> {
  const held: HeldDevice = { place: null, exclusiveFd: null };
  const release = (): void => {
    releaseMarks(image.fd);
    releaseDevice(held);
  };
  try {
    if (image.rdev !== null) held.place = await openCommonPlace({ ...image, rdev: image.rdev });
    // no flock is needed: a mark set during another process's test has the same effect as one set after it
    if (mode === 'w!') await markShared(image, held, options);
    else await inTurn(image, held.place, options, () => refuseConflicts(image, mode, held, options));
  } catch (error) {
    release();
    throw withoutLocks(error, image);
  }
  const grow = (): void => {
    if (image.rdev !== null) growRange(image, mode, held);
  };
  const lower = (): void => {
    lowerMarks(image.fd);
    lowerDevice(held);
  };
  const raise = async (isOwn: ClaimOptions['isOwn']): Promise<void> => {
    // the server has a lock of its own on the common file, which would conflict
    if (held.place?.isOwn === false) throw cannotRaise(image);
    const others = { ...options, isOwn };
    try {
      // locks of the same open file description do not conflict, and need no permission to write
      await inTurn(image, held.place, others, () => refuseConflicts(image, 'w', held, others));
    } catch (error) {
      lower();
      throw withoutLocks(error, image);
    }
  };
  return { mode, grow, raise, lower, release };
}

function cannotRaise({ path }: ClaimedImage): FusetapError {
  return new FusetapError(
    'UNSUPPORTED',
    `${named(path)} is a partition or a loop device, and is attached with mode r`,
    {
      hint: 'detach it, and use qemu-img commit',
      path,
    },
  );
}

/** Releases what mode `w` locks and mode `r` does not. */
function lowerMarks(fd: number): void {
  for (const byte of PLANS.w.take) if (!PLANS.r.take.includes(byte)) tryUnlock(fd, byte, 1);
}

function lowerDevice(held: HeldDevice): void {
  const { place, exclusiveFd } = held;
  held.exclusiveFd = null;
  if (exclusiveFd !== null) closeSync(exclusiveFd);
  if (place !== null) unlockDeviceRange(place, 'w');
}

function growRange(image: ClaimedImage, mode: Mode, held: HeldDevice): void {
  const { place } = held;
  const range = readDeviceRange(image.rdev ?? '');
  if (place === null || range === null || range.sectors <= place.sectors) return;
  const added = { ...place, first: place.first + place.sectors, sectors: range.sectors - place.sectors };
  const other = conflictingMode(added, mode);
  if (other !== null) {
    throw new FusetapError('BUSY', `${named(image.path)} has grown over sectors that are attached with mode ${other}`, {
      hint: 'detach the device that has these sectors too',
      path: image.path,
    });
  }
  lockRange(added, mode);
  held.place = { ...place, sectors: range.sectors };
}

/** The descriptors that a claim on a block device has open besides the image. */
interface HeldDevice {
  place: CommonPlace | null;
  exclusiveFd: number | null;
}

function releaseDevice({ place, exclusiveFd }: HeldDevice): void {
  if (exclusiveFd !== null) closeSync(exclusiveFd);
  if (place !== null && !place.isOwn) closeSync(place.fd);
}

async function markShared(image: ClaimedImage, { place }: HeldDevice, options: ClaimOptions): Promise<void> {
  if (place !== null) lockRange(place, 'w!');
  if (takeMarksIfPossible(image.fd)) await refuseCopied(image, options);
}

/** Does the work while no other fusetap process tests or claims the image, or a device with the same bytes. */
async function inTurn(
  image: ClaimedImage,
  place: CommonPlace | null,
  options: ClaimOptions,
  work: () => Promise<void>,
): Promise<void> {
  // the same order in all processes, against deadlock: first the image's own node, then the common file
  const fds = place === null || place.isOwn ? [image.fd] : [image.fd, place.fd];
  const taken: number[] = [];
  try {
    for (const fd of fds) {
      await takeFlock({ ...image, fd }, options);
      taken.push(fd);
    }
    await work();
  } finally {
    for (const fd of taken) flockRelease(fd);
  }
}

/** A server that writes without the lock of the file ends that when it sees the mark. A stopped server does not. */
async function refuseCopied(image: ClaimedImage, options: ClaimOptions): Promise<void> {
  if (await awaitNoCopies(image.fd, options.patienceMs ?? FLOCK_PATIENCE_MS)) return;
  const isLease = ({ kind, start }: FileLock): boolean => kind === 'OFDLCK' && start === LEASE_BYTE;
  const holders = await lockHolders(image, isLease, options);
  throw busy(image, 'cannot be shared yet: it is being written by', {
    holders,
    hint: 'try again in half a minute: that server does not answer and is replaced by then',
  });
}

/**
 * Takes the locks of a mode without a test. For the server: its own open file description of a claimed image must keep
 * the claim if the keeper dies.
 * @returns false if another process has a write lock on one of the bytes
 */
export function takeMarks(fd: number, mode: Mode): boolean {
  if (mode === 'w!') return takeMarksIfPossible(fd);
  return PLANS[mode].take.every((byte) => lockRangeShared(fd, byte, 1));
}

function takeMarksIfPossible(fd: number): boolean {
  try {
    return lockRangeShared(fd, MARK['w!'], 1);
  } catch (error) {
    if (error instanceof SystemCallError) return false;
    throw error;
  }
}

/** Releases the locks of takeMarks: a process that was started meanwhile may have the descriptor, too. */
export function releaseMarks(fd: number): void {
  tryUnlock(fd, 100, 4);
  tryUnlock(fd, 200, 4);
  tryUnlock(fd, 300, 3);
  tryUnlock(fd, RANGE_BYTES.start, RANGE_BYTES.length);
}

function tryUnlock(fd: number, start: number, length: number): void {
  try {
    unlockRange(fd, start, length);
  } catch (error) {
    // the file system has no locks, or the descriptor is closed: nothing to release
    if (!(error instanceof SystemCallError)) throw error;
  }
}

async function takeFlock(image: ClaimedImage, options: ClaimOptions): Promise<void> {
  const timeoutMs = options.patienceMs ?? FLOCK_PATIENCE_MS;
  if (await until(() => tryFlock(image), { timeoutMs, everyMs: FLOCK_RETRY_MS })) return;
  const holders = await lockHolders(image, (lock) => lock.kind === 'FLOCK', options);
  throw busy(image, 'is locked (flock) by', { holders, hint: hintFor(image, holders) });
}

function tryFlock(image: ClaimedImage): boolean {
  try {
    return tryFlockExclusive(image.fd);
  } catch (error) {
    throw withoutLocks(error, image);
  }
}

/** Tests and takes the locks. If it throws, the caller must release the locks taken so far. */
async function refuseConflicts(
  image: ClaimedImage,
  mode: Mode,
  held: HeldDevice,
  options: ClaimOptions,
): Promise<void> {
  await refuseLocked(image, mode, options);
  await refuseOverlapping(image, mode, held.place, options);
  const user = (await findImageUsers(image)).find(({ writes }) => writes || mode === 'w');
  if (user) throw busyUser(image, user);
  if (!takeMarks(image.fd, mode)) {
    const holders = await lockHolders(image, (lock) => lock.kind !== 'FLOCK' && lock.write, options);
    throw busy(image, 'is locked (fcntl) by', { holders, hint: hintFor(image, holders) });
  }
  await refuseLocked(image, mode, options);
  if (image.rdev !== null) await claimDevice(image, mode, held, options);
}

/** Claims the range of a block device: among all fusetaps with the same /dev; for writing, on the whole machine. */
async function claimDevice(image: ClaimedImage, mode: Mode, held: HeldDevice, options: ClaimOptions): Promise<void> {
  const { place } = held;
  if (place !== null) {
    if (!lockRange(place, mode)) throw busy(image, 'is locked (fcntl) by', { holders: [], hint: hintFor(image, []) });
    await refuseOverlapping(image, mode, place, options);
  }
  if (mode === 'r' && place !== null) return;
  held.exclusiveFd = await openExclusively(image.fd, mode);
  const isHeld = held.exclusiveFd === null;
  if (mode === 'r' && held.exclusiveFd !== null) {
    // it was opened only to check that no other process has it: others may read too
    closeSync(held.exclusiveFd);
    held.exclusiveFd = null;
  }
  // a read-only mount has the device exclusively too; refuseConflicts has checked it
  if (!isHeld || (mode === 'r' && (await findImageUsers(image)).length > 0)) return;
  throw busy(image, 'is in exclusive use (O_EXCL), as a whole or in part, by', {
    holders: [],
    hint: 'end the use of the device (a mount, mkfs, another container), or waive the check with mode w!',
  });
}

/** Throws if a part of the same bytes is in use through another node, device or loop device. */
async function refuseOverlapping(
  image: ClaimedImage,
  mode: Mode,
  place: CommonPlace | null,
  options: ClaimOptions,
): Promise<void> {
  if (place === null) return;
  const held = conflictingMode(place, mode);
  if (held !== null) {
    const overlaps = (lock: FileLock): boolean => lock.kind === 'OFDLCK' && isOfRange(lock, place, held);
    const holders = await lockHolders({ ...image, fd: place.fd }, overlaps, {
      describePid: (pid) => describeByDevice(pid, image, options),
    });
    if (!(await mayShareWithAll(holders, options)))
      throw busy(image, `is attached with mode ${held} by`, { holders, hint: hintFor(image, holders) });
  }
  if (!place.isOwn) await refuseLocked({ ...image, fd: place.fd }, mode, asFileOf(place, options));
  // programs that lock the nodes of the partitions, as QEMU does
  for (const dev of partitionsIn(image)) {
    const fd = await openNode(dev);
    if (fd === null) continue;
    try {
      await refuseLocked({ ...image, fd }, mode, options);
    } finally {
      closeSync(fd);
    }
  }
}

/** The options for the file of the common place: for a loop device, its backing file. */
function asFileOf({ fd }: CommonPlace, options: ClaimOptions): ClaimOptions {
  const stats = fstatSync(fd, { bigint: true });
  const [dev, ino] = [deviceName(stats.dev), String(stats.ino)];
  const rdev = stats.isBlockDevice() ? deviceName(stats.rdev) : null;
  return { ...options, describePid: (pid, image) => options.describePid?.(pid, { ...image, dev, ino, rdev }) ?? null };
}

/** The vbd by which a process uses the device, its disk, a partition of it, or a loop device over the same file. */
async function describeByDevice(pid: number, image: ClaimedImage, options: ClaimOptions): Promise<BusProcess | null> {
  const loops = listLoops().flatMap(({ devs }) => devs);
  const family = readDeviceFamily(image.rdev ?? '').flatMap(({ dev }) => [dev, ...loops]);
  for (const rdev of new Set([image.rdev, ...family])) {
    const found = await options.describePid?.(pid, { ...image, rdev });
    if (found) return found;
  }
  return null;
}

/** The partitions of a disk; empty for a partition. */
function partitionsIn({ rdev }: ClaimedImage): string[] {
  const [own, ...others] = rdev === null ? [] : readDeviceFamily(rdev);
  return own === undefined || readDeviceRange(own.dev)?.disk !== own.dev ? [] : others.map(({ dev }) => dev);
}

async function refuseLocked(image: ClaimedImage, mode: Mode, options: ClaimOptions): Promise<void> {
  for (const [byte, meaning] of PLANS[mode].refuse) {
    if (!isRangeLocked(image.fd, byte, 1)) continue;
    const covers = (lock: FileLock): boolean => lock.kind !== 'FLOCK' && lock.start <= byte && byte <= lock.end;
    const holders = await lockHolders(image, covers, options);
    if (await mayShareWithAll(holders, options)) continue;
    // whether mode r would be possible: a program that only reads, or a vbd of mode r, does not block another reader
    const readable = mode === 'w' && ![...PLANS.r.refuse.keys()].some((other) => isRangeLocked(image.fd, other, 1));
    throw busy(image, meaning, { holders, hint: hintFor(image, holders, readable) });
  }
}

/** A lock whose process is not found is not shared. */
async function mayShareWithAll(holders: readonly Holder[], { mayShareWith }: ClaimOptions): Promise<boolean> {
  if (mayShareWith === undefined || holders.length === 0) return false;
  for (const holder of holders) if (!(await mayShareWith(holder))) return false;
  return true;
}

/**
 * The processes that have a lock on the image. The numbers of the file are read from /proc, because on some file
 * systems stat(2) gives other numbers.
 */
async function lockHolders(
  image: ClaimedImage,
  matches: (lock: FileLock) => boolean,
  options: ClaimOptions,
): Promise<Holder[]> {
  const file = nameInLocks(image.fd);
  if (file === null) return [];
  const holders = await findLockHolders(file, matches, (pid) => options.describePid?.(pid, image) ?? null);
  const { isOwn = () => false } = options;
  return holders.filter((holder) => !isOwn(holder));
}

function nameInLocks(fd: number): string | null {
  const own = (): string | null => readFdinfo('self', fd)?.locks[0]?.file ?? null;
  const known = own();
  if (known !== null || !lockRangeShared(fd, PROBE_BYTE, 1)) return known;
  try {
    return own();
  } finally {
    unlockRange(fd, PROBE_BYTE, 1);
  }
}

function busyUser(image: ClaimedImage, user: ImageUser): FusetapError {
  return new FusetapError('BUSY', `${named(image.path)} ${user.text}`, {
    hint: `${user.hint}; or waive the check with mode w!`,
    path: image.path,
    holders: user.holders,
  });
}

function busy(image: ClaimedImage, what: string, details: ErrorDetails & { holders: Holder[] }): FusetapError {
  const message = `${named(image.path)} ${what} ${describeHolders(details.holders)}`;
  return new FusetapError('BUSY', message, { path: image.path, ...details });
}

function hintFor(image: ClaimedImage, holders: Holder[], readable = false): string {
  const vbd = holders.find((holder) => holder.bus !== undefined);
  const detach = (bus: string): string => `fusetap detach --bus ${named(bus)} ${vbd?.vdev ?? named(image.path)}`;
  const first = vbd?.bus === undefined ? 'end that program' : detach(vbd.bus);
  return `${first}${readable ? ', attach it with mode r' : ''}, or waive the check with mode w!`;
}

/** Turns a failed lock call into an error of its own, so that it is not taken for a lock of another process. */
function withoutLocks(error: unknown, image: ClaimedImage): unknown {
  if (!(error instanceof SystemCallError)) return error;
  const known = [E.ENOLCK, E.EOPNOTSUPP, E.ENOSYS, E.EINVAL].includes(error.errno);
  const message = `${named(image.path)} cannot be locked: ${errnoName(error.errno)}`;
  return new FusetapError(known ? 'UNSUPPORTED' : 'FAILED', message, {
    hint: 'without locks sharing cannot be checked: put the image on another file system, or attach it with mode w!',
    errno: error.errno,
    path: image.path,
    cause: error,
  });
}
