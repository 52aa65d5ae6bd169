/**
 * vmdk: the disk of a VMDK. The image is a descriptor, a text that names the files of the disk; or a sparse extent that has
 * the descriptor inside; or an OVA with one of them. Extents are joined; threads serve what lies in files as it is.
 *
 *      file: disk.vmdk                      the descriptor, or all of the disk; never written
 *      extent0: disk-f001.vmdk              part of the disk
 *      extent1: disk-f002.vmdk
 *      backing: base.vmdk                   what a snapshot or a linked clone does not have; only read
 */
import type { Disk } from '../disk.js';
import type { Driver, Given, Need } from '../driver.js';
import { FusetapError } from '../errors.js';
import { unsupported } from '../formats/faults.js';
import { MOST_FILES } from '../graph.js';
import { FORMAT_FILE, requireDisk } from '../image.js';
import { takeOptions } from '../options.js';
import { quoted } from '../quote.js';
import type { Descriptor } from './descriptor.js';
import { joinExtents } from './extents.js';
import { imageIn } from './ova.js';
import { readVmdk } from './read-vmdk.js';
import { sparseDisk } from './sparse-disk.js';

/** the files of a disk, without the descriptor */
const MOST_EXTENT_FILES = MOST_FILES - 1;
const ONLY_READ = 'attach it with mode r, or write to memory: --snapshot';

const vmdk = {
  name: 'vmdk',
  roles: {
    file: { ...FORMAT_FILE.file, access: 'read' },
    extent: { takes: 'disk', access: 'as-parent', isOptional: true, many: true },
    backing: { takes: 'disk', access: 'read', isOptional: true },
  },
  check: (options) => takeOptions('vmdk', options, []),
  async needs({ disks }) {
    const { descriptor } = await readVmdk(await imageIn(requireDisk({ disks }, 'vmdk')));
    const { names, parent } = descriptor;
    if (names.length > MOST_EXTENT_FILES) throw tooMany(names.length);
    const needs = names.map((name, file): Need => ({ role: `extent${file}`, name, driver: 'aio' }));
    if (parent === null) return needs;
    return [...needs, { role: 'backing', name: parent.name, driver: 'vmdk' }];
  },
  async open({ disks, readOnly }) {
    const image = await imageIn(requireDisk({ disks }, 'vmdk'));
    const { descriptor, header } = await readVmdk(image);
    if (!readOnly) refuseWrites(descriptor);
    const backing = backingOf(descriptor, disks);
    const disk = await (header === null
      ? joinExtents(descriptor, disks, backing)
      : sparseDisk({ image, header, shares: 1 }, backing));
    return { ...disk, ...(descriptor.cid !== null && { identity: descriptor.cid }) };
  },
} satisfies Driver;

function tooMany(files: number): Error {
  return unsupported(`it is a VMDK of ${files} files: at most ${MOST_EXTENT_FILES} are served`);
}

function refuseWrites({ extents, parent, isTracked }: Descriptor): void {
  const isSparse = extents.length === 0 || extents.some(({ place }) => place?.isSparse);
  if (isSparse || parent !== null) {
    throw new FusetapError('DENIED', 'a VMDK with sparse extents can only be read', { hint: ONLY_READ });
  }
  if (!isTracked) return;
  throw new FusetapError('DENIED', 'changes of this VMDK are tracked (CBT), and a write here would not be', {
    hint: ONLY_READ,
  });
}

/** The disk of the parent; null if there is none. @throws FusetapError FAILED if it has another content id */
function backingOf({ parent }: Descriptor, { backing }: Given['disks']): Disk | null {
  if (parent === null) return null;
  if (backing === undefined) throw new FusetapError('NOT_FOUND', `the parent ${quoted(parent.name)} was not given`);
  if (backing.identity === parent.cid) return backing;
  const is = `its parent has the content id ${backing.identity ?? 'none'}, not ${parent.cid}`;
  throw new FusetapError('FAILED', `${is}: the parent was written since, or is another disk`, {
    hint: 'restore the parent as it was when the image was made over it',
  });
}

export default vmdk;
