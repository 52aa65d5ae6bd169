/**
 * The disk of a VHDX, put together from its parts.
 *
 *      request ──► Reader ──► VhdxFinder ──► TablePages ──► ReplayedImage ──► file, log in memory
 *                     └──► file, ReplayedImage, parent │ zeros
 */
import type { Disk } from '../disk.js';
import type { RawDisk } from '../driver.js';
import { Reader } from '../lookup/reader.js';
import { serveParts } from '../lookup/serve-parts.js';
import { VhdxFinder } from './find.js';
import type { Vhdx } from './open-image.js';
import { TablePages } from './table-pages.js';

/** of an image with a parent: the map of 64 TiB then has a directory of 8 MiB */
const PARTIAL_GRANULE_BYTES = 64 << 10;

/** @param parent null if the image has none */
export function vhdxDisk({ file, image, areas, shape, header }: Vhdx, parent: Disk | null): RawDisk {
  const { size, blockBytes, logicalSectorBytes } = shape;
  const finder = new VhdxFinder(shape, image, { areas, pages: new TablePages(image) });
  const reader = new Reader({
    ...{ size, finder, data: file, backing: parent },
    unitBytes: parent === null ? blockBytes : logicalSectorBytes,
    decode: ({ place }, buffer) => image.read(buffer, place),
    // QEMU makes a block longer than what it writes there
    mayHaveHoles: async () => true,
  });
  const granuleBytes = parent === null ? blockBytes : PARTIAL_GRANULE_BYTES;
  const { reading } = serveParts(reader, { size, granuleBytes, readOnly: true });
  return { ...reading, identity: header.dataWriteGuid, close: async () => {} };
}
