/**
 * Opens an image as a disk in this process, through its driver and filters, without a bus: for programs that read or
 * write the bytes that a vbd would show. The sharing rule applies as for a vbd (coherence rule 8).
 */
import { closeSync } from 'node:fs';
import { type Disk, frontDisk } from '../drivers/disk.js';
import type { Driver, OpenContext } from '../drivers/driver.js';
import { FusetapError } from '../drivers/errors.js';
import type { FilterSpec } from '../drivers/filters/filter.js';
import { openFiltered } from '../drivers/open-filtered.js';
import { loadDriver } from '../drivers/registry.js';
import { memfdCreate } from '../system/libc.js';
import { findDriver } from './client/find-driver.js';
import { absolutePath, workingDirectory } from './client/finding/working-directory.js';
import { settleFilters } from './client/settle-filters.js';
import { claimImage } from './images/claim-image.js';
import type { Mode } from './images/mode.js';
import { openImage } from './images/open-image.js';
import { endsShown } from './images/refuse-foreign.js';

export interface OpenDiskRequest {
  /** a name, the path of a file, or the name of a package */
  readonly driver: string;
  /** relative to this process's directory; null for a driver that takes none */
  readonly image: string | null;
  readonly mode: Mode;
  readonly options: Readonly<Record<string, string>>;
  /** see AttachRequest */
  readonly raw?: boolean | undefined;
  readonly filters: readonly FilterSpec[];
}

/** no bus is mounted there, so no image can lie on it */
const NO_BUS = { mountpoint: '/proc/self/no-bus' };

/**
 * Opens a disk. Its `close` frees everything, including the memory of a ram disk.
 * @throws FusetapError as an attach of the same image would
 */
export async function openDiskHere(request: OpenDiskRequest): Promise<Disk> {
  const filters = settleFilters(request.filters, workingDirectory, { provesRead: false });
  const driver = await loadDriver(findDriver(request.driver, workingDirectory));
  checkImageGiven(driver, request.image);
  const undo: (() => void)[] = [];
  const undoAll = (): void => {
    for (const step of undo.splice(0).reverse()) step();
  };
  try {
    const context = await openContext(driver, request, undo);
    const disk = frontDisk(await openFiltered(driver, context, filters), context);
    const close = disk.close.bind(disk);
    disk.close = () => close().finally(undoAll);
    return disk;
  } catch (error) {
    undoAll();
    throw error;
  }
}

function checkImageGiven(driver: Driver, image: string | null): void {
  if ((driver.image === 'required') === (image !== null)) return;
  const what = image === null ? 'needs an image' : 'takes no image';
  throw new FusetapError('USAGE', `driver ${driver.name} ${what}`, { hint: 'see docs/drivers.md' });
}

async function openContext(driver: Driver, request: OpenDiskRequest, undo: (() => void)[]): Promise<OpenContext> {
  const { mode, options } = request;
  const image =
    request.image === null ? null : await claim(driver, { ...request, path: absolutePath(request.image) }, undo);
  const context = { image, options, readOnly: mode === 'r' };
  if (driver.prepare === undefined) return { ...context, memory: null, state: null };
  const memory = { fd: memfdCreate('fusetap-disk') };
  undo.push(() => closeSync(memory.fd));
  const { signal } = new AbortController();
  const state = await driver.prepare({ image, memory, options, signal, progress: () => {} });
  return { ...context, memory, state };
}

async function claim(
  driver: Driver,
  { path, mode, raw = false, filters }: OpenDiskRequest & { readonly path: string },
  undo: (() => void)[],
): Promise<OpenContext['image']> {
  // memory takes the writes, so the file is only ever read
  const imageMode = driver.sharesMemory ? 'r' : mode;
  const recognize = driver.rawImage && !raw ? endsShown(filters) : 'neither';
  const image = await openImage(path, imageMode, NO_BUS, { recognize });
  undo.push(() => closeSync(image.fd));
  const held = await claimImage(image, imageMode);
  undo.push(() => held.release());
  const { fd, sizeBytes, kind } = image;
  return { fd, path, sizeBytes, kind };
}
