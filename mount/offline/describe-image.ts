/**
 * What an image is: its format, its sizes, what it says of itself, and the files that it names. Reads only.
 *
 * The files that an image names are looked up by the rules of `--backing`: no other file is opened.
 */

import { closeAll } from '../../drivers/close-fd.js';
import { FusetapError } from '../../drivers/errors.js';
import type { Description, NamedFile } from '../../drivers/examining/examiner.js';
import { examinerOf } from '../../drivers/examining/formats.js';
import { driverOfFormat } from '../../drivers/formats/qemu-names.js';
import { DEEPEST } from '../../drivers/graph.js';
import { named } from '../../drivers/quote.js';
import type { BackingPolicy } from '../control/interface.js';
import { placeOfNamed } from '../images/named-file.js';
import { identityOf, type OpenedImage, openImage } from '../images/open-image.js';
import { NO_BUS, openDiskHere } from '../open-disk.js';
import { diskOfFile, type ImageWish, type OfflineImage, openOffline, requestFor, sayingPath } from './offline-image.js';

/** A file of the chain of an image. */
export interface ChainLink {
  readonly role: NamedFile['role'];
  /** as the image has it that names the file */
  readonly name: string;
  /** as QEMU calls it; null if it is not stated */
  readonly format: string | null;
  /** absolute; null if the name leads to no file that may be opened */
  readonly path: string | null;
  /** of its disk, in bytes; null if it is not known */
  readonly size: number | null;
  /** why the file cannot be used; null: it is there */
  readonly error: string | null;
}

export interface ImageInfo {
  readonly image: string;
  readonly format: string;
  /** of its disk, in bytes; null if it is not known */
  readonly size: number | null;
  readonly fileBytes: number;
  /** null for a block device */
  readonly allocatedBytes: number | null;
  readonly facts: Description['facts'];
  /** the extents, the file with the data and the backing file, then those that the backing file names, and so on */
  readonly chain: readonly ChainLink[];
  /** remarks for the user, one line each */
  readonly notes: readonly string[];
}

/** @throws FusetapError if the image cannot be opened, or is not of the format of the first driver */
export async function describeImage(wish: ImageWish, policy: BackingPolicy): Promise<ImageInfo> {
  const opened = await openOffline(wish, { mode: 'r', evenInUse: true });
  try {
    const notes = notesOn(opened);
    const { format, file, allocatedBytes } = opened;
    const examiner = await examinerOf(format);
    const described = examiner === undefined ? null : await sayingPath(file, () => examiner.describe(opened.image));
    const chain: ChainLink[] = [];
    if (described !== null) await followNames(described.names, [file], { policy, chain });
    const size = described === null ? await sizeByDriver(opened, wish, notes) : described.size;
    const sizes = { size, fileBytes: file.sizeBytes, allocatedBytes };
    return { image: file.path, format, ...sizes, facts: described?.facts ?? {}, chain, notes };
  } finally {
    await opened.close();
  }
}

function notesOn({ recognized, file, inUse }: OfflineImage): string[] {
  const notes: string[] = [];
  if (inUse !== null) notes.push(`${inUse.message}: what is shown may be changing`);
  if (recognized !== null && recognized.format === undefined) notes.push(`${named(file.path)} is ${recognized.is}`);
  return notes;
}

/** The size of a disk whose format has no examiner. */
async function sizeByDriver({ format, file }: OfflineImage, wish: ImageWish, notes: string[]): Promise<number | null> {
  if (format === 'raw' && wish.drivers.length < 2) return file.sizeBytes;
  const driver = driverOfFormat(format);
  const drivers = wish.drivers.length > 0 ? wish.drivers : driver === undefined ? [] : [driver];
  if (drivers.length === 0) return null;
  try {
    const disk = await openDiskHere({ ...requestFor(drivers, file.path), mode: 'r' });
    await disk.close();
    return disk.size;
  } catch (error) {
    if (!(error instanceof FusetapError)) throw error;
    // the driver that the user named says that the image has another format
    if (wish.drivers.length > 0 && error.code === 'USAGE') throw error;
    notes.push(`the size of its disk is not known: ${error.message}`);
    return null;
  }
}

interface Following {
  readonly policy: BackingPolicy;
  /** gets the links */
  readonly chain: ChainLink[];
}

/** @param owners the image that has the names is the first, then the one that names it, and so on */
async function followNames(names: readonly NamedFile[], owners: readonly OpenedImage[], to: Following): Promise<void> {
  for (const each of names) {
    const { role, name, format } = each;
    const link = { role, name, format, path: null, size: null, error: null };
    try {
      await followName(each, owners, to);
    } catch (error) {
      if (!(error instanceof FusetapError)) throw error;
      to.chain.push({
        ...link,
        path: error.path === owners[0]?.path ? null : (error.path ?? null),
        error: error.message,
      });
    }
  }
}

async function followName(link: NamedFile, owners: readonly OpenedImage[], to: Following): Promise<void> {
  const [owner] = owners as [OpenedImage];
  const { path, below } = placeOfNamed(link.name, owner, to.policy);
  if (owners.length >= DEEPEST) throw new FusetapError('USAGE', `more than ${DEEPEST} images are below one another`);
  const file = await openImage(path, 'r', NO_BUS, below === undefined ? {} : { below });
  try {
    if (owners.some((other) => identityOf(other) === identityOf(file))) {
      throw new FusetapError('USAGE', `${named(path)} is below itself: the chain of files is a circle`, { path });
    }
    if (link.format === null) {
      throw new FusetapError('UNSUPPORTED', `${named(path)}: its format is not stated`, { path });
    }
    const examiner = await examinerOf(link.format);
    const described = await sayingPath(file, async () => examiner?.describe(diskOfFile(file, { mode: 'r' })));
    const size = link.format === 'raw' ? file.sizeBytes : (described?.size ?? null);
    to.chain.push({ ...link, path, size, error: null });
    if (described !== undefined) await followNames(described.names, [file, ...owners], to);
  } finally {
    await closeAll([file.fd]);
  }
}
