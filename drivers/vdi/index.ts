/**
 * vdi: the disk in a VDI of VirtualBox. Threads serve the blocks that have a place, and write them in place. Blocks are
 * added on the event loop. A static image whose blocks are in order is one run of bytes.
 */
import { readOnlyBlockDisk, writableBlockDisk } from '../blocks/block-disk.js';
import type { Driver } from '../driver.js';
import { broken } from '../formats/faults.js';
import { FORMAT_FILE, requireDisk } from '../image.js';
import { takeOptions } from '../options.js';
import { joinDisks } from '../segments/join-disks.js';
import { BlockMap, repairCount } from './block-map.js';
import { FORMAT, type Header, readHeader } from './header.js';

const vdi = {
  name: 'vdi',
  roles: FORMAT_FILE,
  grows: true,
  check: (options) => takeOptions('vdi', options, []),
  async repair(context) {
    const wasWrong = await repairCount(requireDisk(context, 'vdi'));
    return wasWrong ? ['it was not closed: its count of blocks was corrected'] : [];
  },
  async open({ disks, readOnly }) {
    const image = requireDisk({ disks }, 'vdi');
    const header = await readHeader(image);
    const { size, blockBytes } = header;
    if (header.type === 'static') {
      const map = new BlockMap(image, header, null);
      await map.load();
      // blocks that are in order have all their places, so the map never changes
      if (map.isInOrder) return joinDisks([{ disk: image, start: startOf(header, image.size), size }]);
    }
    const parts = { image, size, backing: null, unitBytes: unitOf(blockBytes) };
    if (readOnly) return readOnlyBlockDisk(parts, new BlockMap(image, header, null));
    return writableBlockDisk(parts, (barrier) => new BlockMap(image, header, barrier));
  },
} satisfies Driver;

/** Where the disk of an image begins whose blocks are in order. @throws FusetapError FAILED if the image is cut */
function startOf({ dataStart, size }: Header, imageBytes: number): number {
  if (dataStart + size <= imageBytes) return dataStart;
  throw broken(FORMAT, `its data ends at byte ${dataStart + size}, and the image has ${imageBytes} bytes`);
}

/** The largest power of two that divides a block. */
function unitOf(blockBytes: number): number {
  let unit = 512;
  while (blockBytes % (2 * unit) === 0) unit *= 2;
  return unit;
}

export default vdi;
