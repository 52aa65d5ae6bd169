/** What is done with an image before it is opened for writing. */
import type { Disk } from '../disk.js';
import type { RepairContext } from '../driver.js';
import { requireDisk } from '../image.js';
import { checkCounted } from './check.js';
import { AUTOCLEAR, checkWritable, type Header, isDirty, readHeader } from './format/header.js';
import { mayReuseFree } from './limits.js';
import { L2Tables } from './reading/l2-tables.js';
import { repairImage } from './repair.js';
import { damaged } from './repairing/damaged.js';

/**
 * `repair` of the driver. An image that was not closed cleanly is repaired; another one is checked, if that does not take
 * long.
 * @throws FusetapError DENIED if the image contradicts itself: a write could destroy data
 */
export async function makeSound(context: RepairContext): Promise<string[]> {
  const image = requireDisk(context, 'qcow2');
  const header = await readHeader(image);
  checkWritable(header);
  const remarks = await repairImage(context);
  if (!isDirty(header)) await checkIfSmall(image, header, context);
  if ((header.autoclear & AUTOCLEAR.bitmaps) === 0n) return remarks;
  const what =
    'it has dirty bitmaps for backups: the first write makes them invalid, so the next backup must be a full one';
  return [...remarks, what];
}

async function checkIfSmall(image: Disk, header: Header, { signal }: RepairContext): Promise<void> {
  const tables = new L2Tables(image, header, header.l1);
  await tables.load();
  if (!mayReuseFree(tables.count)) return;
  const { count, comparison } = await checkCounted(image, header, { signal });
  const { findings } = count;
  // a cluster that is used once and not marked so is copied before it is written
  if (findings.count > comparison.unmarked) throw damaged(findings.lines[0] ?? 'its refcounts are wrong');
}
