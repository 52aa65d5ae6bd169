/** Makes the picture of a disk from its map. */
import type { Change } from '../../mount/client/ranges/changes.js';
import type { MapExtent } from '../../mount/client/ranges/map.js';
import { Cells } from './cells.js';
import { drawPicture } from './draw.js';
import type { MarkedPartition, Picture } from './picture.js';

/** What a picture is made of. */
export interface PictureParts extends Pick<Picture, 'name' | 'changes' | 'columns'> {
  readonly sizeBytes: number;
  readonly partitions: readonly MarkedPartition[];
  readonly extents: AsyncIterable<MapExtent>;
  /** the ranges to mark; null: none */
  readonly changed: AsyncIterable<Change> | null;
}

/** An SVG document. Only the cells are kept in memory, however many extents the disk has. */
export async function pictureOf(parts: PictureParts): Promise<string> {
  const { sizeBytes, extents, changed, ...rest } = parts;
  const cells = new Cells(sizeBytes);
  for await (const extent of extents) cells.add(extent);
  for await (const { offset, length } of changed ?? []) cells.mark({ start: offset, length });
  return drawPicture({ ...rest, cells });
}
