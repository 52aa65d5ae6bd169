/** What the disk in an image is, range by range, without a bus. Reads only; the image is claimed as for a vbd of mode r. */
import { closeAll } from '../../drivers/close-fd.js';
import { FusetapError } from '../../drivers/errors.js';
import { driverOfFormat } from '../../drivers/formats/qemu-names.js';
import { allExtents, type MapExtent, tellExtents } from '../../drivers/map/map-extents.js';
import { named } from '../../drivers/quote.js';
import { openImage } from '../images/open-image.js';
import { recognizeFile } from '../images/refuse-foreign.js';
import { NO_BUS, type OpenDiskRequest, openTreeHere } from '../open-disk.js';

export type { MapExtent };

export interface MapWish extends Pick<OpenDiskRequest, 'driver' | 'image' | 'options' | 'disk' | 'backing'> {
  /** the user has named only the image: its format is recognized by its bytes, see offline-image.ts */
  readonly isOnlyImage: boolean;
}

/** @throws FusetapError as an attach of the image with mode r would; UNSUPPORTED for a format that has no driver */
export async function* mapImage({ isOnlyImage, ...wish }: MapWish): AsyncGenerator<MapExtent, void> {
  const driver = isOnlyImage && wish.image !== null ? await driverFor(wish.image) : wish.driver;
  // it is not written, so raw bytes that look like another format are no danger
  const { disk, filePaths } = await openTreeHere({ ...wish, driver, mode: 'r', raw: true, filters: [] });
  try {
    yield* allExtents(async (offset) => {
      const { extents, next } = await tellExtents(disk, offset, disk.size - offset);
      return {
        extents: extents.map(({ fd, ...extent }) => ({ ...extent, filename: filePaths.get(fd ?? -1) ?? null })),
        next,
      };
    });
  } finally {
    await disk.close();
  }
}

async function driverFor(path: string): Promise<string> {
  const file = await openImage(path, 'r', NO_BUS);
  try {
    const recognized = await recognizeFile(file.fd, file.sizeBytes);
    const driver = driverOfFormat(recognized?.format ?? 'raw');
    if (driver !== undefined) return driver;
    throw new FusetapError('UNSUPPORTED', `${named(path)} is ${recognized?.is}, which has no driver`, {
      hint: `the map of its bytes: fusetap map aio:${named(path)}`,
      path,
    });
  } finally {
    await closeAll([file.fd]);
  }
}
