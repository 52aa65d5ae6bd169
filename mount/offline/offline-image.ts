/**
 * An image that this process opens to look at it or to repair it, without a bus. The sharing rule applies as for a vbd
 * (coherence rule 8).
 *
 * If the user names no driver, the format is recognized by the bytes of the image. That is safe here, because nothing is
 * served from it: a guest that writes the header of another format into its raw disk only gets a description of that.
 */
import { fstatSync } from 'node:fs';
import { closeAll } from '../../drivers/close-fd.js';
import { type Disk, frontDisk } from '../../drivers/disk.js';
import { FusetapError } from '../../drivers/errors.js';
import type { ForeignFormat } from '../../drivers/formats/foreign.js';
import { driverOfFormat, formatOfDriver } from '../../drivers/formats/qemu-names.js';
import { type NodeSpec, simpleGraph } from '../../drivers/graph.js';
import { named } from '../../drivers/quote.js';
import { wholeImageDisk } from '../../drivers/segments/growing-file.js';
import { type Claim, claimImage } from '../images/claim-image.js';
import { type OpenedImage, openImage } from '../images/open-image.js';
import { recognizeFile } from '../images/refuse-foreign.js';
import { withoutModes } from '../images/without-modes.js';
import { NO_BUS, openDiskHere } from '../open-disk.js';
import { describeUser } from './describe-user.js';

export interface ImageWish {
  /** absolute */
  readonly path: string;
  /** the top first; empty: the format is recognized */
  readonly drivers: readonly string[];
}

export interface OfflineImage {
  /** as QEMU calls it; the name of the driver if it is no format */
  readonly format: string;
  /** what the image looks like, if that was asked for and it does not look raw */
  readonly recognized: ForeignFormat | null;
  /** what has the format: the file, or the disk of the drivers below the first */
  readonly image: Disk;
  readonly file: OpenedImage;
  /** bytes on its file system; null for a block device */
  readonly allocatedBytes: number | null;
  /** who uses the image so that it may change, or must not be read; null: nobody */
  readonly inUse: FusetapError | null;
  close(): Promise<void>;
}

export interface OfflineOptions {
  readonly mode: 'r' | 'w';
  /** open an image in use too; default: it is BUSY */
  readonly evenInUse?: boolean;
}

/** @throws FusetapError as an attach of the image would; USAGE if it is of another format than that of a named driver */
export function openOffline(wish: ImageWish, options: OfflineOptions): Promise<OfflineImage> {
  return withoutModes('make it writable, or omit --repair', () => openAndClaim(wish, options));
}

async function openAndClaim({ path, drivers }: ImageWish, options: OfflineOptions): Promise<OfflineImage> {
  const file = await openImage(path, options.mode, NO_BUS);
  const undo: (() => Promise<unknown>)[] = [() => closeAll([file.fd])];
  const close = async (): Promise<void> => {
    for (const step of undo.reverse()) await step();
  };
  try {
    const { held, inUse } = await claim(file, options);
    // a shell that was started meanwhile has the descriptor, too: closing it would not release the claim
    if (held !== null) undo.push(async () => held.release());
    const recognized = drivers.length === 0 ? await recognizeFile(file.fd, file.sizeBytes) : null;
    await refuseOtherFormat(file, drivers.at(-1));
    const [top, ...below] = drivers;
    const format = top === undefined ? (recognized?.format ?? 'raw') : formatOfDriver(top);
    const image = below.length === 0 ? diskOfFile(file, options) : await openBelow(below, path, options);
    undo.push(() => image.close());
    const allocatedBytes = file.kind === 'file' ? fstatSync(file.fd).blocks * 512 : null;
    return { ...{ format, recognized, image, file, allocatedBytes, inUse }, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** @param driver reads the file; others than those of a format take any bytes, and so does raw */
async function refuseOtherFormat({ fd, sizeBytes, path }: OpenedImage, driver?: string): Promise<void> {
  const stated = driver === undefined ? 'raw' : formatOfDriver(driver);
  if (driver === undefined || stated === 'raw' || driverOfFormat(stated) === undefined) return;
  const recognized = await recognizeFile(fd, sizeBytes, 'both', stated);
  if (recognized === null || recognized.format === stated) return;
  throw new FusetapError('USAGE', `${named(path)} is ${recognized.is}, which the driver ${driver} does not read`, {
    hint: 'give only the path: the format is recognized',
    path,
  });
}

interface Claiming {
  readonly held: Claim | null;
  readonly inUse: FusetapError | null;
}

async function claim(file: OpenedImage, { mode, evenInUse = false }: OfflineOptions): Promise<Claiming> {
  try {
    return { held: await claimImage(file, mode, { describePid: describeUser }), inUse: null };
  } catch (error) {
    if (!evenInUse || !(error instanceof FusetapError)) throw error;
    return { held: null, inUse: error };
  }
}

/** The bytes of a file, as the driver of a format is given them. */
export function diskOfFile({ fd, sizeBytes, kind }: OpenedImage, { mode }: Pick<OfflineOptions, 'mode'>): Disk {
  const readOnly = mode === 'r';
  return frontDisk(wholeImageDisk({ fd, start: 0, size: sizeBytes, kind, readOnly, durable: false }), { readOnly });
}

function openBelow(drivers: readonly string[], path: string, { mode }: OfflineOptions): Promise<Disk> {
  return openDiskHere({ ...requestFor(drivers, path), mode });
}

/** The request for the disk of drivers over a file. @param drivers the top first, at least one */
export function requestFor(drivers: readonly string[], path: string) {
  const [bottom = '', ...above] = [...drivers].reverse();
  let disk: NodeSpec = simpleGraph(bottom, path);
  for (const driver of above) disk = { driver, options: {}, on: { file: disk } };
  return { driver: disk.driver, image: path, options: {}, disk, filters: [] };
}

/** Adds the path of the image to the errors of code for its format, which does not know it. */
export async function sayingPath<Result>(
  { path }: Pick<OpenedImage, 'path'>,
  work: () => Promise<Result>,
): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof FusetapError) || error.path !== undefined) throw error;
    const { code, message, hint, errno, operation, offset } = error;
    const way = hint?.replaceAll('IMAGE', () => named(path));
    throw new FusetapError(code, `${named(path)}: ${message}`, {
      ...{ hint: way, errno, operation, offset, path, cause: error },
    });
  }
}
