/**
 * Whether it is worth to look for holes in the file of an image, although its tables tell already what is data: if many
 * clusters were allocated before they were written (preallocation=metadata), they are holes. QEMU decides in the same way.
 */
import { fstat } from 'node:fs';
import { promisify } from 'node:util';
import type { Disk } from '../../disk.js';
import { readUpTo } from '../../formats/read.js';
import { windowOf } from '../../segments/one-segment.js';
import { type Header, refcountsPerBlock } from '../format/header.js';
import { RefcountBlock } from '../format/refcount-block.js';

const fstatAsync = promisify(fstat);

const RESERVED_LOW = 0x1ff;

/** @param data the image, or its data file */
export async function mayHaveHoles(image: Disk, data: Disk, header: Header): Promise<boolean> {
  const { clusterBytes } = header;
  const window = windowOf(data);
  // what is made of several files is not measured
  if (window === undefined) return true;
  if (window.kind === 'block') return false;
  const { size, blocks } = await fstatAsync(window.fd);
  const clusters = Math.ceil(size / clusterBytes);
  const taken = Math.floor((blocks * 512) / clusterBytes);
  const many = Math.max(Math.floor((taken * 10) / 9), taken + 2);
  if (clusters < many) return false;
  // refcounts do not count the clusters of a data file
  return data !== image || (await hasUsedClusters(image, header, { clusters, many }));
}

/** Whether so many of the first clusters of an image have a refcount. Refcounts that are not valid do not count. */
async function hasUsedClusters(
  image: Disk,
  header: Header,
  { clusters, many }: { clusters: number; many: number },
): Promise<boolean> {
  const { refcountTable, clusterBytes, refcountOrder } = header;
  const perBlock = refcountsPerBlock(header);
  const blocks = Math.min(Math.ceil(clusters / perBlock), (refcountTable.clusters * clusterBytes) / 8);
  const table = await readUpTo(image, refcountTable.offset, blocks * 8);
  let used = 0;
  for (let block = 0; block < Math.floor(table.length / 8); block++) {
    const low = table.readUInt32BE(block * 8 + 4);
    const place = table.readUInt32BE(block * 8) * 2 ** 32 + (low - (low & RESERVED_LOW));
    if (place === 0 || place + clusterBytes > image.size) continue;
    const refcounts = new RefcountBlock(await readUpTo(image, place, clusterBytes), place, refcountOrder);
    const count = Math.min(perBlock, clusters - block * perBlock);
    for (let index = 0; index < count; index++) {
      if (refcounts.get(index) === 0) continue;
      used += 1;
      if (used >= many) return true;
    }
  }
  return false;
}
