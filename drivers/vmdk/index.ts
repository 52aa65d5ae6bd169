/**
 * vmdk: the disk of a VMDK. The image is a descriptor, a text that names the files of the disk; or a sparse extent that has
 * the descriptor inside; or an OVA with one of them. Extents are joined; threads serve what lies in files as it is.
 *
 *      file: disk.vmdk                      all of the disk; or the descriptor, which is never written then
 *      extent0: disk-f001.vmdk              part of the disk
 *      extent1: disk-f002.vmdk
 *      backing: base.vmdk                   what a snapshot or a linked clone does not have; only read
 */
import { writableBlockDisk } from '../blocks/block-disk.js';
import { defined } from '../defined.js';
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
import { GrainMap, repairTables } from './grain-map.js';
import { imageIn } from './ova.js';
import { readVmdk } from './read-vmdk.js';
import { sparseDisk } from './sparse-disk.js';
import { refuseWrites, writableParts } from './write-rules.js';

/** the files of a disk, without the descriptor */
const MOST_EXTENT_FILES = MOST_FILES - 1;

const vmdk = {
  name: 'vmdk',
  roles: {
    ...FORMAT_FILE,
    extent: { takes: 'disk', access: 'as-parent', isOptional: true, many: true },
    backing: { takes: 'disk', access: 'read', isOptional: true },
  },
  grows: true,
  check: (options) => takeOptions('vmdk', options, []),
  async needs({ disks }) {
    const { descriptor } = await readVmdk(await imageIn(requireDisk({ disks }, 'vmdk')));
    const { names, parent } = descriptor;
    if (names.length > MOST_EXTENT_FILES) throw tooMany(names.length);
    const needs = names.map((name, file): Need => ({ role: `extent${file}`, name, driver: 'aio' }));
    if (parent === null) return needs;
    return [...needs, { role: 'backing', name: parent.name, driver: 'vmdk' }];
  },
  async repair(context) {
    const parts = await writableParts(await imageIn(requireDisk(context, 'vmdk')));
    const remark = parts && (await repairTables(parts));
    return remark === null ? [] : [remark];
  },
  async open({ disks, readOnly }) {
    const image = await imageIn(requireDisk({ disks }, 'vmdk'));
    const { descriptor, header, cidPlace } = await readVmdk(image);
    if (!readOnly) refuseWrites(image, descriptor, header);
    const backing = backingOf(descriptor, disks);
    const identity = descriptor.cid ?? undefined;
    if (header !== null && !readOnly) {
      const parts = { image, size: header.size, backing, unitBytes: header.grainBytes, identity };
      return writableBlockDisk(parts, (barrier) => new GrainMap({ image, header, cidPlace }, barrier));
    }
    const disk = await (header === null
      ? joinExtents(descriptor, disks, backing)
      : sparseDisk({ image, header, shares: 1 }, backing));
    return { ...disk, ...defined({ identity }) };
  },
} satisfies Driver;

function tooMany(files: number): Error {
  return unsupported(`it is a VMDK of ${files} files: at most ${MOST_EXTENT_FILES} are served`);
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
