/**
 * A disk that is opened for reading without a bus, to tell what is in it: its map, its partitions, its bytes. The image is
 * claimed as for a vbd of mode r.
 */
import { fstatSync } from 'node:fs';
import { closeAll } from '../../drivers/close-fd.js';
import type { Disk } from '../../drivers/disk.js';
import type { Change } from '../../drivers/driver.js';
import { FusetapError } from '../../drivers/errors.js';
import { driverOfFormat } from '../../drivers/formats/qemu-names.js';
import { allExtents, type FileExtent, type MapExtent, tellExtents } from '../../drivers/map/map-extents.js';
import { readPartitions } from '../../drivers/partitions/index.js';
import { named } from '../../drivers/quote.js';
import { openImage } from '../images/open-image.js';
import { recognizeFile } from '../images/refuse-foreign.js';
import { NO_BUS, type OpenDiskRequest, openTreeHere } from '../open-disk.js';

export type { Change, MapExtent };

export interface MapWish extends Pick<OpenDiskRequest, 'driver' | 'image' | 'options' | 'disk' | 'backing'> {
  /** the user has named only the image: its format is recognized by its bytes, see offline-image.ts */
  readonly isOnlyImage: boolean;
}

/** A partition of the table of a disk. */
export interface FoundPartition {
  readonly number: number;
  readonly name: string | null;
  readonly offset: number;
  readonly size: number;
}

export class MappedImage {
  readonly #disk: Disk;
  readonly #paths: ReadonlyMap<number, string>;
  /** of files, by descriptor: equal for descriptors of one file */
  readonly #identities = new Map<number, string>();

  /** @throws FusetapError as an attach of the image with mode r would; UNSUPPORTED for a format that has no driver */
  static async open({ isOnlyImage, ...wish }: MapWish): Promise<MappedImage> {
    const driver = isOnlyImage && wish.image !== null ? await driverFor(wish.image) : wish.driver;
    // it is not written, so raw bytes that look like another format are no danger
    const { disk, filePaths } = await openTreeHere({ ...wish, driver, mode: 'r', raw: true, filters: [] });
    return new MappedImage(disk, filePaths);
  }

  private constructor(disk: Disk, paths: ReadonlyMap<number, string>) {
    this.#disk = disk;
    this.#paths = paths;
  }

  get sizeBytes(): number {
    return this.#disk.size;
  }

  /** Fills the buffer; what is behind the end of the disk is zeros. */
  async read(buffer: Uint8Array, offset: number): Promise<void> {
    const done = offset < this.#disk.size ? await this.#disk.read(buffer, offset) : 0;
    buffer.fill(0, done);
  }

  /** The extents, in order and without gaps. */
  extents(): AsyncGenerator<MapExtent, void> {
    return allExtents(async (offset) => {
      const { extents, next } = await this.tell(offset);
      return {
        extents: extents.map(({ fd, ...extent }) => ({ ...extent, filename: this.#paths.get(fd ?? -1) ?? null })),
        next,
      };
    });
  }

  /** The first extents from an offset on. */
  tell(offset: number): ReturnType<typeof tellExtents> {
    return tellExtents(this.#disk, offset, this.#disk.size - offset);
  }

  /** Where the bytes of an extent are, as a text that is equal only for the same bytes of one file; null: not known. */
  placeOf({ fd, offset, start }: FileExtent): string | null {
    if (fd === null || offset === null) return null;
    let identity = this.#identities.get(fd);
    if (identity === undefined) {
      const { dev, ino } = fstatSync(fd, { bigint: true });
      identity = `${dev}:${ino}`;
      this.#identities.set(fd, identity);
    }
    return `${identity} ${offset - start}`;
  }

  /** The ranges in which it differs from its base, in order. @throws FusetapError UNSUPPORTED if it has none */
  async *changes(): AsyncGenerator<Change, void> {
    const { size } = this.#disk;
    for (let at = 0; at < size; ) {
      const found = await this.#disk.changes(at, size - at);
      yield* found;
      const last = found.at(-1);
      if (last === undefined) return;
      at = last.offset + last.length;
    }
  }

  /** Those of its partition table; none if there is no table that can be read. */
  async partitions(): Promise<readonly FoundPartition[]> {
    const read = async (offset: number, length: number): Promise<Uint8Array> => {
      const bytes = new Uint8Array(length);
      await this.read(bytes, offset);
      return bytes;
    };
    try {
      return (await readPartitions(read, this.#disk.size)).partitions;
    } catch (error) {
      // the map says more about a damaged image than its table would
      if (error instanceof FusetapError) return [];
      throw error;
    }
  }

  close(): Promise<void> {
    return this.#disk.close();
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
