/**
 * From an image to its files in one step.
 *
 *      image ──► vbd: one that is attached, or a new one ──► the disk, a partition, or all partitions
 *                                                              ├─► loop device ──mount(8)──► directory      root
 *                                                              └─► fuse2fs, squashfuse … ──► directory      other users
 *
 * If a step fails, the steps before it are undone. The bus detaches a new vbd by itself after the last of its mounts.
 */

import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { FusetapError } from '../../drivers/errors.js';
import { parseSize } from '../../drivers/parse-size.js';
import { named } from '../../drivers/quote.js';
import type { AttachOptions } from '../client/index.js';
import type { AttachRequest, AttachResult, PartitionInfo } from '../control/interface.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { findPartition, mountableParts, onlyPart, type Part, partOf } from './choose-partition.js';
import { makeDirectory, realDirectory, removeDirectory } from './directories.js';
import { findSameMount } from './in-use.js';
import { type Disk, takeDisk } from './take-disk.js';
import { mountFile, whyReadOnly as whyOnlyRead } from './tools/mount-file.js';
import type { TellWait } from './tools/run-tool.js';
import { unmountDirectory } from './tools/unmount-directory.js';

export interface MountRequest {
  readonly attach: AttachRequest;
  /** an existing directory */
  readonly directory: string;
  /** a number, name, label or UUID; `all`: each on a directory of its own below the directory; null: the only one */
  readonly partition: string | { readonly all: true } | null;
  /** the bytes of the image that have the file system, as options of losetup(8); null: all */
  readonly range: { readonly offset: string; readonly sizelimit: string | null } | null;
  /** type of the file system; null: detect it */
  readonly type: string | null;
  /** for mount(8) or the FUSE program */
  readonly options: readonly string[];
}

export interface MountOptions extends AttachOptions {
  readonly waits?: TellWait | undefined;
}

/** A file system that is mounted. */
export interface MountedPart {
  /** real path */
  readonly directory: string;
  /** the loop device; null if a FUSE program mounted it */
  readonly device: string | null;
  /** the number in the partition table; null: the whole disk */
  readonly partition: number | null;
}

export interface MountedImage {
  /** real path of the directory of the request */
  readonly directory: string;
  readonly vbd: AttachResult;
  readonly mounted: readonly MountedPart[];
  /** everything was mounted there already: nothing was done */
  readonly isAlready: boolean;
  /** for the user */
  readonly remarks: readonly string[];
}

/** The image has no partition at the given offset. */
class NoSuchPartition extends Error {}
/** The disk of a new vbd of mode w is read-only by its nature. */
class BetterReadOnly extends Error {}

/**
 * Mounts the file system of an image, or several.
 * @param place of a new vbd; its bus is started if it does not run
 * @throws FusetapError; everything is undone then
 */
export async function mountImage(
  place: BusPlace,
  request: MountRequest,
  options: MountOptions = {},
): Promise<MountedImage> {
  const { range, attach } = request;
  const directory = realDirectory(request.directory);
  if (range === null) return await new Mounting(place, { ...request, directory }, options).run();
  try {
    return await new Mounting(place, { ...request, directory }, options).run();
  } catch (error) {
    if (!(error instanceof NoSuchPartition)) throw error;
  }
  const { offset, sizelimit } = range;
  const limit = sizelimit === null ? [] : [{ name: 'sizelimit', value: sizelimit }];
  const filters = [{ name: 'offset', value: offset }, ...limit];
  const narrowed = { ...request, directory, range: null, attach: { ...attach, filters } };
  return await new Mounting(place, narrowed, options).run();
}

/** A part with the place where it will be. */
interface Target {
  readonly part: Part;
  readonly directory: string;
  readonly readOnly: boolean;
  /** why it can only be read; null if it can be written, or if nobody asked to write it */
  readonly whyReadOnly: string | null;
}

class Mounting {
  readonly #place: BusPlace;
  readonly #request: MountRequest;
  readonly #options: MountOptions;
  /** why the mount is read-only although this was not asked for; null: it is not */
  #whyReadOnly: string | null = null;

  constructor(place: BusPlace, request: MountRequest, options: MountOptions) {
    this.#place = place;
    this.#request = request;
    this.#options = options;
  }

  async run(): Promise<MountedImage> {
    const { attach } = this.#request;
    try {
      return await this.#take(attach);
    } catch (error) {
      const isDenied = error instanceof FusetapError && error.code === 'DENIED' && attach.mode === 'w';
      if (!isDenied && !(error instanceof BetterReadOnly)) throw error;
      this.#whyReadOnly = isDenied ? `${named(attach.image ?? '')} cannot be written` : (error as Error).message;
      return await this.#take({ ...attach, mode: 'r' }).catch((failure: unknown) => {
        throw isDenied && failure instanceof FusetapError && failure.code === 'DENIED' ? error : failure;
      });
    }
  }

  #take(attach: AttachRequest): Promise<MountedImage> {
    const { waits, ...options } = this.#options;
    return takeDisk({ place: this.#place, attach, options, waits }, (disk) => this.#mountFrom(disk));
  }

  async #mountFrom(disk: Disk): Promise<MountedImage> {
    const { directory } = this.#request;
    const targets = (await this.#choose(disk)).map((part) => this.#targetOf(disk, part));
    const { runtimeDir } = this.#place;
    const isMounted: boolean[] = [];
    for (const target of targets) {
      isMounted.push((await findSameMount({ vbd: disk.vbd, ...target }, runtimeDir)) !== null);
    }
    const missing = targets.filter((_, i) => !isMounted[i]);
    if (missing.length > 0) await this.#refuseMode(disk, missing);
    const { mounted, remarks } = await this.#mountAll(missing);
    const notes = [...this.#tableNotes(disk.vbd), ...remarks];
    return { directory, vbd: disk.vbd, mounted, isAlready: missing.length === 0, remarks: notes };
  }

  async #choose({ vbd, partition, pin }: Disk): Promise<Part[]> {
    const { partition: wish, range } = this.#request;
    if (partition !== null) return [await partOf(vbd, partition)];
    if (range !== null) return [await partOf(vbd, partitionAt(vbd, range))];
    if (wish === null) return [await onlyPart(vbd)];
    if (vbd.partitions === null) throw noPartitions(vbd);
    return typeof wish === 'string' ? [await findPartition(vbd, wish, pin.file)] : await mountableParts(vbd);
  }

  #targetOf({ vbd, isNew }: Disk, part: Part): Target {
    const { directory, partition, type, attach } = this.#request;
    const place = typeof partition === 'object' && partition !== null ? join(directory, `p${part.number}`) : directory;
    const contentType = type ?? part.content.type;
    const why = whyOnlyRead(contentType);
    // others may use an image that nobody writes
    if (why !== null && isNew && part.number === null && vbd.mode === 'w' && vbd.driver !== 'ram') {
      throw new BetterReadOnly(why);
    }
    const readOnly = why !== null || vbd.mode === 'r' || attach.mode === 'r';
    return { part, directory: place, readOnly, whyReadOnly: attach.mode === 'r' ? null : why };
  }

  /** @throws FusetapError BUSY if the vbd is attached read-only, and the mount is to write */
  async #refuseMode({ vbd, isNew }: Disk, targets: readonly Target[]): Promise<void> {
    const { attach, type } = this.#request;
    if (isNew || vbd.mode !== 'r' || attach.mode === 'r') return;
    if (targets.every(({ part }) => whyOnlyRead(type ?? part.content.type) !== null)) return;
    const image = named(vbd.image ?? vbd.path);
    if (vbd.image !== null && !(await canWrite(vbd.image))) {
      this.#whyReadOnly ??= `${image} cannot be written`;
      return;
    }
    throw new FusetapError('BUSY', `${image} is attached read-only as ${vbd.vdev} of bus ${vbd.bus}`, {
      hint: 'mount it with --read-only; or unmount it, and mount first what is to be written',
      holders: [{ bus: vbd.bus, vdev: vbd.vdev }],
    });
  }

  /** Mounts all, or none. */
  async #mountAll(targets: readonly Target[]): Promise<{ mounted: MountedPart[]; remarks: string[] }> {
    const { type, options, partition } = this.#request;
    const mounted: MountedPart[] = [];
    const remarks: string[] = [];
    const made: string[] = [];
    try {
      for (const { part, directory, readOnly, whyReadOnly } of targets) {
        if (typeof partition === 'object' && partition !== null && makeDirectory(directory)) made.push(directory);
        const { file, number, content } = part;
        const { waits } = this.#options;
        const done = await mountFile({ file, directory, readOnly, content, type, options, waits });
        mounted.push({ directory, device: done.device, partition: number });
        remarks.push(...done.remarks);
        const why = whyReadOnly ?? this.#whyReadOnly;
        if (readOnly && why !== null) remarks.push(`${directory} is mounted read-only: ${why}`);
      }
      return { mounted, remarks };
    } catch (error) {
      for (const { directory, device } of mounted.reverse()) {
        // ignore errors: the error of the mount is more important
        await unmountDirectory({ mountpoint: directory, type: device === null ? 'fuse' : '' }).catch(() => {});
      }
      for (const directory of made.reverse()) removeDirectory(directory);
      throw error;
    }
  }

  /** The remarks of the attach; without those about the partition table if nobody asked for a partition. */
  #tableNotes({ vdev, partitions, notes = [] }: AttachResult): string[] {
    const isWanted = (partitions ?? []).length > 0 || this.#request.partition !== null;
    return isWanted ? notes : notes.filter((note) => !note.startsWith(`${vdev}: `));
  }
}

/** The partition that begins at the offset. @throws NoSuchPartition */
function partitionAt({ partitions }: AttachResult, range: NonNullable<MountRequest['range']>): PartitionInfo {
  const offset = parseSize(range.offset, 'offset');
  const limit = range.sizelimit === null ? null : parseSize(range.sizelimit, 'sizelimit');
  const found = partitions?.find((one) => one.offset === offset && (limit === null || limit === one.size));
  if (found === undefined) throw new NoSuchPartition();
  return found;
}

function noPartitions({ vdev, bus, image, path }: AttachResult): FusetapError {
  return new FusetapError('BUSY', `${named(image ?? path)} is attached as ${vdev} of bus ${bus}, without partitions`, {
    hint: `fusetap detach --bus ${bus} ${vdev}, or attach it with --partitions`,
  });
}

async function canWrite(image: string): Promise<boolean> {
  try {
    await access(image, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
