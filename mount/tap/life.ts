/**
 * The life of a vbd in the steps of tap-ctl:
 *
 *      allocate ─► (spawn) ─► attach ─► open ─► pause ─► unpause ─► close ─► detach ─► free
 *
 * These vbds never use passthrough, so they can always be paused. A step that fails changes nothing.
 */
import { constants as os } from 'node:os';
import { resolve } from 'node:path';
import { FusetapError } from '../../drivers/errors.js';
import { factsOf } from '../../drivers/names.js';
import { canonicalUri, driverOfUri } from '../../drivers/remote-uris.js';
import { detach, pause, resume, stop } from '../client/index.js';
import { proveReadable } from '../client/proving-read.js';
import { swap } from '../client/swap.js';
import { call } from '../control/call.js';
import { sentDisk } from '../control/disk-wish.js';
import { isNotRunning } from '../control/http-client.js';
import type { AttachRequest, DiskWish, VbdInfo } from '../control/interface.js';
import { findMinor, listMinors, pointDevice, removeMinor, requireMinor, setOwner, withMinorsLocked } from './minors.js';
import { requireAttached, requireOpen, requireTapdisk, vdevOfMinor } from './tapdisks.js';

const { errno } = os;

/** The image named by `-a TYPE:PATH`. */
export interface TapImage {
  readonly driver: string;
  readonly path: string;
}

/** The name of a vbd in every command. */
export interface TapName {
  readonly runtimeDir: string;
  readonly pid: number;
  readonly minor: number;
}

/** @throws FusetapError with ENOENT, or EEXIST if the minor is attached already */
export async function attachMinor({ runtimeDir, pid, minor }: TapName): Promise<void> {
  const { place } = await requireTapdisk(runtimeDir, pid);
  await withMinorsLocked(runtimeDir, async () => {
    const { owner } = requireMinor(runtimeDir, minor);
    if (owner !== null) {
      throw new FusetapError('BUSY', `minor ${minor} is attached already, to tapdisk ${owner.pid}`, {
        hint: `tap-ctl detach -p ${owner.pid} -m ${minor}`,
        errno: errno.EEXIST,
      });
    }
    setOwner(runtimeDir, minor, { bus: place.name, pid });
  });
}

/**
 * Opens an image in an attached minor.
 * @throws FusetapError with EALREADY if an image is open; what an attach of the image throws
 */
export async function openMinor(name: TapName, image: TapImage, readOnly: boolean): Promise<VbdInfo> {
  const { runtimeDir, pid, minor } = name;
  const { place, info, vbd } = await requireAttached(runtimeDir, pid, minor);
  if (info === null || info.state === 'orphaned') throw tapdiskDied(name);
  if (vbd !== null) throw openAlready(minor, vbd);
  const body: AttachRequest = {
    ...diskOf(image),
    vdev: vdevOfMinor(minor),
    mode: readOnly ? 'r' : 'w',
    passthrough: 'off',
  };
  const opened = await call(place, 'POST /vbds', { body: sentDisk(body) });
  try {
    await proveReadable(opened.path);
    if (findMinor(runtimeDir, minor)?.owner?.pid !== pid) throw tapdiskDied(name);
    pointDevice(runtimeDir, minor, opened.path);
  } catch (error) {
    await detach(place, opened.vdev, { force: true }).catch(() => {});
    throw error;
  }
  return opened;
}

/** `-a TYPE:PATH`; the path of nbd is a URI, or what follows `nbd:` in QEMU's words. */
function diskOf({ driver, path }: TapImage): Pick<DiskWish, 'driver' | 'image' | 'options'> {
  if (!factsOf(driver)?.isRemote) return { driver, image: resolve(path), options: {} };
  const uri = driverOfUri(path) === null ? `${driver}:${path}` : path;
  return { driver, image: null, options: { uri: canonicalUri(uri, (each) => resolve(each)) } };
}

function openAlready(minor: number, { driver, image }: VbdInfo): FusetapError {
  return new FusetapError('BUSY', `${driver}:${image ?? ''} is open already in minor ${minor}`, {
    hint: 'close it first, or swap it: tap-ctl pause, then unpause -a TYPE:PATH',
    errno: errno.EALREADY,
  });
}

function tapdiskDied({ pid, minor }: TapName): FusetapError {
  return new FusetapError('NOT_FOUND', `tapdisk ${pid} of minor ${minor} is gone`, {
    hint: `tap-ctl destroy -p ${pid} -m ${minor}, then create it again`,
    errno: errno.ENODEV,
  });
}

export interface CloseOptions {
  /** close it although it is in use: later I/O of its users is EIO */
  readonly force?: boolean;
  /** how long to wait until it is not in use */
  readonly waitSeconds?: number | undefined;
}

/** Closes the image; written data is durable then. @throws FusetapError BUSY with the holders; with ENODEV */
export async function closeMinor(name: TapName, options: CloseOptions = {}): Promise<void> {
  const { runtimeDir, pid, minor } = name;
  const { place, vbd } = await requireOpen(runtimeDir, pid, minor);
  await detach(place, vbd.vdev, options);
  pointDevice(runtimeDir, minor, null);
}

/** Detaches a minor. Its tapdisk ends with its last minor. @throws FusetapError with EBUSY while an image is open */
export async function detachMinor({ runtimeDir, pid, minor }: TapName): Promise<void> {
  const { place, info, vbd } = await requireAttached(runtimeDir, pid, minor);
  if (vbd !== null) {
    throw new FusetapError('BUSY', `minor ${minor} is open`, {
      hint: `tap-ctl close -p ${pid} -m ${minor}`,
      errno: errno.EBUSY,
    });
  }
  await withMinorsLocked(runtimeDir, async () => {
    setOwner(runtimeDir, minor, null);
    const isUsed = listMinors(runtimeDir).some(({ owner }) => owner?.bus === place.name && owner.pid === pid);
    if (info === null || isUsed) return;
    await stop(place).catch((error: unknown) => {
      if (!isNotRunning(error)) throw error;
    });
  });
}

/** Ends a tapdisk without attached minors. @throws FusetapError with ENOENT */
export async function stopTapdisk(runtimeDir: string, pid: number): Promise<void> {
  const { place } = await requireTapdisk(runtimeDir, pid);
  await stop(place);
}

/** Frees a minor. @throws FusetapError with EBUSY while it is attached */
export async function freeMinor({ runtimeDir, minor }: Omit<TapName, 'pid'>): Promise<void> {
  await withMinorsLocked(runtimeDir, async () => {
    const { owner } = requireMinor(runtimeDir, minor);
    if (owner !== null) {
      throw new FusetapError('BUSY', `minor ${minor} is attached to tapdisk ${owner.pid}`, {
        hint: `tap-ctl detach -p ${owner.pid} -m ${minor}`,
        errno: errno.EBUSY,
      });
    }
    removeMinor(runtimeDir, minor);
  });
}

/** Does close, detach and free, as far as they are needed. */
export async function destroyMinor(name: TapName, options: CloseOptions = {}): Promise<void> {
  const { vbd } = await requireAttached(name.runtimeDir, name.pid, name.minor);
  if (vbd !== null) await closeMinor(name, options);
  await detachMinor(name);
  await freeMinor(name);
}

/** Pauses the I/O: it waits, without an error. */
export async function pauseMinor(name: TapName): Promise<void> {
  const { place, vbd } = await requireLive(name);
  await pause(place, vbd.vdev);
}

/**
 * Resumes the I/O. If an image is given, it replaces the old one; it must have the same size and is opened in the same
 * mode.
 * @throws FusetapError USAGE (EINVAL) if the minor is not paused, or the size differs; it stays paused then
 */
export async function unpauseMinor(name: TapName, image: TapImage | null): Promise<void> {
  const { pid, minor } = name;
  const { place, vbd } = await requireLive(name);
  if (vbd.state !== 'paused') {
    throw new FusetapError('USAGE', `minor ${minor} is not paused`, { hint: `tap-ctl pause -p ${pid} -m ${minor}` });
  }
  if (image !== null) {
    await swap(place, vbd.vdev, diskOf(image));
  }
  await resume(place, vbd.vdev);
}

/** An open vbd whose tapdisk still answers. */
async function requireLive(name: TapName): Promise<Awaited<ReturnType<typeof requireOpen>>> {
  const found = await requireOpen(name.runtimeDir, name.pid, name.minor);
  if (found.info?.state === 'orphaned') throw tapdiskDied(name);
  return found;
}
