/**
 * vhdx: the disk in a VHDX of Hyper-V, Azure or QEMU: fixed, dynamic or differencing. It is only read. A log that is not empty is
 * replayed in memory.
 *
 *      file: disk.vhdx          the image
 *      backing: parent.vhdx     what is not in a differencing image
 */
import type { Disk } from '../disk.js';
import type { Driver } from '../driver.js';
import { FusetapError } from '../errors.js';
import { FORMAT_FILE, requireDisk } from '../image.js';
import { takeOptions } from '../options.js';
import { vhdxDisk } from './disk.js';
import { findNeeds } from './needs.js';
import { openVhdx, type Vhdx } from './open-image.js';

const vhdx = {
  name: 'vhdx',
  roles: { ...FORMAT_FILE, backing: { takes: 'disk', access: 'read', isOptional: true } },
  check: (options) => takeOptions('vhdx', options, []),
  needs: findNeeds,
  async open({ disks, readOnly }) {
    const opened = await openVhdx(requireDisk({ disks }, 'vhdx'));
    const { backing = null } = disks;
    checkParent(opened, backing);
    if (!readOnly) throw onlyRead();
    return vhdxDisk(opened, backing);
  },
} satisfies Driver;

function checkParent({ metadata: { parent } }: Vhdx, backing: Disk | null): void {
  if (parent === null && backing !== null) throw new FusetapError('USAGE', 'it has no parent, and one was given');
  if (parent === null) return;
  if (backing === null) throw new FusetapError('NOT_FOUND', 'its parent was not given');
  const id = backing.identity;
  if (id !== undefined && parent.linkages.includes(id)) return;
  const is = id === undefined ? 'the parent is not a VHDX' : `the parent has the id ${id}`;
  throw new FusetapError('FAILED', `it was made over other bytes: ${is}, not ${parent.linkages[0]}`, {
    hint: 'restore the parent from a copy; it must not be written after the image was made',
  });
}

function onlyRead(): FusetapError {
  return new FusetapError('DENIED', 'a VHDX is only read', {
    hint:
      'attach it with mode r, write to memory (--snapshot), or convert it: ' +
      'qemu-img convert -O qcow2 IMAGE disk.qcow2',
  });
}

export default vhdx;
