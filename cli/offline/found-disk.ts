/**
 * The disk that a word names, for commands that tell what is where on it: that of a vbd, asked of its bus, or that of an
 * image, opened here.
 */
import { FusetapError } from '../../drivers/errors.js';
import { SNAPSHOT_DRIVER } from '../../drivers/names.js';
import { isPath, type LocatedVbd } from '../../mount/client/finding/locate-vbd.js';
import type { Change } from '../../mount/client/ranges/changes.js';
import type { MapExtent } from '../../mount/client/ranges/map.js';
import type { BackingPolicy } from '../../mount/control/interface.js';
import type { MappedImage } from '../../mount/offline/mapped-image.js';
import { attachRequest } from '../attach-request.js';
import { locateVbd } from '../locate-vbd.js';
import type { SharedOptions } from '../options.js';
import type { MarkedPartition } from '../picture/picture.js';
import { isOnlyImage } from './image-wish.js';

export interface DiskOptions extends SharedOptions {
  option?: string[];
  backing?: BackingPolicy;
}

export interface FoundDisk {
  /** what it is called in a title */
  readonly name: string;
  readonly sizeBytes: number;
  /** null: it is an image */
  readonly vbd: LocatedVbd['vbd'] | null;
  /** whether what was written since its attach can be told from the rest */
  readonly isSnapshot: boolean;
  partitions(): Promise<readonly MarkedPartition[]>;
  extents(): AsyncIterable<MapExtent>;
  /** where it differs from its base; throws FusetapError UNSUPPORTED if it has none */
  changes(): AsyncIterable<Change>;
  close(): Promise<void>;
}

/**
 * The disk of a vbd, else of an image.
 * @throws FusetapError NOT_FOUND; for an image as an attach with mode r would
 */
export async function findDisk(word: string, options: DiskOptions): Promise<FoundDisk> {
  const located = await findVbd(word, options);
  return located === null ? diskOfImage(word, await openSpec(word, options)) : await diskOfVbd(located);
}

/** The vbd that a word names; null if it can only be an image. */
export async function findVbd(word: string, options: DiskOptions): Promise<LocatedVbd | null> {
  // these are of an image
  if (options.option !== undefined || options.backing !== undefined) return null;
  try {
    return await locateVbd(word, options);
  } catch (error) {
    const mayBeImage = options.bus === undefined && isPath(word);
    if (mayBeImage && error instanceof FusetapError && error.code === 'NOT_FOUND') return null;
    throw error;
  }
}

/** @param signal gives up what is asked of its bus */
export async function diskOfVbd({ place, vbd }: LocatedVbd, signal?: AbortSignal): Promise<FoundDisk> {
  const [{ map }, { changes }] = await Promise.all([
    import('../../mount/client/ranges/map.js'),
    import('../../mount/client/ranges/changes.js'),
  ]);
  const partitions = vbd.partitions ?? [];
  return {
    name: `${vbd.vdev} on bus ${vbd.bus}${vbd.image === null ? '' : ` (${vbd.image})`}`,
    sizeBytes: vbd.size,
    vbd,
    isSnapshot: vbd.driver === SNAPSHOT_DRIVER,
    partitions: async () =>
      partitions.map(({ vdev, name, offset, size }) => ({ name: joined(vdev, name), offset, size })),
    extents: () => map(place, vbd.vdev, signal),
    changes: () => changes(place, vbd.vdev, signal),
    close: async () => {},
  };
}

/** The disk of an image that is open; its `close` closes the image. */
export function diskOfImage(name: string, image: MappedImage): FoundDisk {
  return {
    ...{ name, sizeBytes: image.sizeBytes, vbd: null, isSnapshot: false },
    async partitions() {
      const found = await image.partitions();
      return found.map(({ number, name: label, ...place }) => ({ name: joined(String(number), label), ...place }));
    },
    extents: () => image.extents(),
    changes: () => image.changes(),
    close: () => image.close(),
  };
}

/** Opens the image of a SPEC for reading. @throws FusetapError USAGE if the SPEC has a place on a bus; as MappedImage.open */
export async function openSpec(word: string, options: DiskOptions): Promise<MappedImage> {
  const { request } = attachRequest([word], options);
  if (request.vdev !== null) {
    throw new FusetapError('USAGE', `${word} has a place on a bus`, { hint: 'give only the image' });
  }
  const { driver, image, disk, backing, options: driverOptions } = request;
  const { MappedImage } = await import('../../mount/offline/mapped-image.js');
  return await MappedImage.open({
    ...{ driver, image, disk, backing, options: driverOptions, isOnlyImage: isOnlyImage(word) },
  });
}

function joined(number: string, name: string | null): string {
  return name === null || name === '' ? number : `${number} ${name}`;
}
