/**
 * From an image to its files in one step.
 *
 *      image ──attach──► vbd, or a partition of it ──► loop device ──mount(8)──► directory      root
 *                                                  └── fuse2fs, squashfuse … ──► directory      other users
 *
 * If a step fails, the steps before it are undone.
 */

import { createHash } from 'node:crypto';
import { realpathSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { defined } from '../../drivers/defined.js';
import { FusetapError, toFusetapError } from '../../drivers/errors.js';
import { type AttachOptions, attach, detach } from '../client/index.js';
import type { AttachRequest, AttachResult } from '../control/interface.js';
import { type BusPlace, resolveBus } from '../runtime/bus-place.js';
import { findFuseProgram, mountByFuse, probeType } from './fuse-programs.js';
import { canMountByLoop, mountByLoop } from './loop-mount.js';
import { MountCheck } from './mount-check.js';
import type { TellWait } from './run-tool.js';

export interface MountRequest {
  readonly attach: AttachRequest;
  /** an existing directory */
  readonly directory: string;
  /** number in the partition table; null: the whole disk */
  readonly partition: number | null;
  /** type of the file system; null: detect it */
  readonly type: string | null;
  /** for mount(8) or the FUSE program */
  readonly options: readonly string[];
}

export interface MountedImage {
  /** real path */
  readonly directory: string;
  /** the loop device; null if a FUSE program mounted it */
  readonly device: string | null;
  readonly vbd: AttachResult;
}

/** a mount program that has just failed may use the vbd a moment longer */
const UNDO_SECONDS = 10;

/** The bus that a mount on a directory has for itself. */
export function busOfDirectory(directory: string, runtimeDir: string): Promise<BusPlace> {
  const hash = createHash('sha256').update(realDirectory(directory)).digest('hex');
  return resolveBus(`mount-${hash.slice(0, 12)}`, runtimeDir);
}

/** The real path. @throws FusetapError NOT_FOUND, USAGE if it is not a directory */
export function realDirectory(directory: string): string {
  const cannot = `cannot mount on ${directory}`;
  const path = resolve(directory);
  try {
    const real = realpathSync(path);
    if (statSync(real).isDirectory()) return real;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const hint = code === 'ENOENT' ? `mkdir -p ${directory}` : undefined;
    throw toFusetapError(error, `${cannot}: ${code}`, { hint, path: directory });
  }
  throw new FusetapError('USAGE', `${cannot}: it is not a directory`, { path: directory });
}

/**
 * Attaches an image and mounts its file system.
 * @param place of the bus, which is started if it does not run
 * @throws FusetapError; everything is undone then
 */
export async function mountImage(
  place: BusPlace,
  request: MountRequest,
  { waits, ...options }: AttachOptions & { readonly waits?: TellWait | undefined } = {},
): Promise<MountedImage> {
  const directory = realDirectory(request.directory);
  const partitions = request.partition !== null || request.attach.partitions;
  const wanted: AttachRequest = { ...request.attach, ...defined({ partitions }) };
  const vbd = await attach(place, wanted, options);
  try {
    const { device, remarks } = await mountFile(fileOf(vbd, request.partition), directory, request, waits);
    const notes = [...(vbd.notes ?? []), ...remarks];
    return { directory, device, vbd: notes.length === 0 ? vbd : { ...vbd, notes } };
  } catch (error) {
    // ignore an error of the detach: the error of the mount is more important
    await detach(place, vbd.vdev, { waitSeconds: UNDO_SECONDS }).catch(() => {});
    throw error;
  }
}

function fileOf({ vdev, path, partitions }: AttachResult, number: number | null): string {
  if (number === null) return path;
  const found = (partitions ?? []).find((partition) => partition.vdev === `${vdev}${number}`);
  if (found !== undefined) return found.path;
  const names = (partitions ?? []).map((partition) => partition.vdev.slice(vdev.length)).join(', ');
  throw new FusetapError('NOT_FOUND', `the image has no partition ${number}`, {
    hint: names === '' ? 'it has none: omit --partition' : `it has ${names}`,
  });
}

interface Mounted {
  /** the loop device; null if a FUSE program mounted it */
  readonly device: string | null;
  /** for the user */
  readonly remarks: readonly string[];
}

async function mountFile(
  file: string,
  directory: string,
  request: MountRequest,
  waits: TellWait | undefined,
): Promise<Mounted> {
  const { type, options } = request;
  const readOnly = request.attach.mode === 'r';
  const check = await MountCheck.begin(directory);
  const words = { file, directory, readOnly, options, waits, remarks: (line: string) => check.note(line) };
  if (canMountByLoop()) {
    const device = await mountByLoop({ ...words, type });
    return { device, remarks: await check.finish({ file, readOnly }) };
  }
  const program = await findFuseProgram(type ?? (await probeType(file)), !readOnly);
  await mountByFuse(program, words);
  return { device: null, remarks: await check.finish({ file, readOnly }) };
}
