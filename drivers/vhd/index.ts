/**
 * vhd: the disk in a VHD. A fixed one is the image without the footer, so threads serve it as they serve a raw image. Of
 * dynamic and differencing ones threads serve the sectors that the files of the chain have; blocks are added on the event
 * loop.
 *
 *      file: disk.vhd         the image
 *      backing: base.vhd      what a differencing image does not have; only read
 */
import { readOnlyBlockDisk, writableBlockDisk } from '../blocks/block-disk.js';
import type { Disk } from '../disk.js';
import type { Driver } from '../driver.js';
import { FusetapError } from '../errors.js';
import { broken } from '../formats/faults.js';
import { FORMAT_FILE, requireDisk } from '../image.js';
import { takeOptions } from '../options.js';
import { quoted } from '../quote.js';
import { joinDisks } from '../segments/join-disks.js';
import { AllocationTable, restoreFooter, type VhdParts } from './allocation-table.js';
import { type Parent, readDynamicHeader } from './dynamic-header.js';
import { endsWithFooter, FORMAT, type Footer, readFooter } from './footer.js';

/** granules of the map: blocks over a parent lack sectors, so theirs are as small as the requests of guests */
const UNIT_BYTES = { dynamic: 64 << 10, differencing: 4096 };

const vhd = {
  name: 'vhd',
  roles: { ...FORMAT_FILE, backing: { takes: 'disk', access: 'read', isOptional: true } },
  grows: true,
  check(options) {
    takeOptions('vhd', options, ['size']);
    const { size = 'current' } = options;
    if (size === 'current' || size === 'geometry') return;
    throw new FusetapError('USAGE', `size=${quoted(size)} is not known`, { hint: 'size=current, or size=geometry' });
  },
  async needs({ disks }) {
    const image = requireDisk({ disks }, 'vhd');
    const footer = await readFooter(image);
    if (footer.type !== 'differencing' || disks.backing !== undefined) return [];
    const { parent } = await readDynamicHeader(image, footer);
    const [name] = parent?.names ?? [];
    if (name === undefined) throw broken(FORMAT, 'it does not name its parent');
    return [{ role: 'backing', name, driver: parent?.uuid === null ? 'aio' : 'vhd' }];
  },
  async repair(context) {
    const parts = await partsOf(requireDisk(context, 'vhd'));
    if (parts === null) return [];
    refuseHidden(parts.footer);
    return (await restoreFooter(parts)) ? ['it was not closed: its footer was written again'] : [];
  },
  async open({ disks, readOnly, options }) {
    const image = requireDisk({ disks }, 'vhd');
    const footer = await readFooter(image);
    if (!readOnly) refuseHidden(footer);
    const size = options.size === 'geometry' ? footer.sizeByGeometry : footer.size;
    const identity = footer.uuid;
    if (footer.type === 'fixed') return { ...joinDisks([{ disk: image, start: 0, size }]), identity };
    const header = await readDynamicHeader(image, footer);
    const backing = header.parent === null ? null : await parentOf(header.parent, disks.backing);
    const unitBytes = Math.min(UNIT_BYTES[footer.type], header.blockBytes);
    const parts = { image, size, backing, unitBytes, identity };
    if (readOnly) return readOnlyBlockDisk(parts, new AllocationTable({ image, footer, header }, null));
    return writableBlockDisk(parts, (barrier) => new AllocationTable({ image, footer, header }, barrier));
  },
} satisfies Driver;

/** Null: the image is fixed. */
async function partsOf(image: Disk): Promise<VhdParts | null> {
  const footer = await readFooter(image);
  return footer.type === 'fixed' ? null : { image, footer, header: await readDynamicHeader(image, footer) };
}

function refuseHidden({ isHidden }: Footer): void {
  if (!isHidden) return;
  throw new FusetapError('DENIED', 'other images are made on top of this VHD, so it must not be written', {
    hint: 'attach it with mode r',
  });
}

/**
 * An image over a raw one has no id of its parent, nor has an image over a VHD without an id, as QEMU made them once.
 * @throws FusetapError NOT_FOUND, or FAILED if it is another image, or a VHD in place of a raw image
 */
async function parentOf({ uuid }: Parent, backing: Disk | undefined): Promise<Disk> {
  if (backing === undefined) throw new FusetapError('NOT_FOUND', 'its parent was not given');
  if (uuid === null && (await endsWithFooter(backing))) {
    throw new FusetapError('FAILED', 'it says that its parent is a raw image, and that ends as a VHD', {
      hint: 'if the parent is a VHD, attach a tree of drivers that says so: "backing": {"driver": "vhd", …}',
    });
  }
  if (uuid === null || uuid === backing.identity) return backing;
  throw new FusetapError(
    'FAILED',
    `its parent has the id ${uuid}, and the image below has ${backing.identity ?? 'none'}`,
    {
      hint: 'give the image that it was made over',
    },
  );
}

export default vhd;
