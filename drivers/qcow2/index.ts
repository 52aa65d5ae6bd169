/**
 * qcow2: the disk in a qcow2 image. Threads serve what lies in files as they serve a raw image, also through a chain of
 * backing files. Allocation and compressed clusters are served on the event loop.
 *
 *      file: disk.qcow2       the image
 *      backing: base.img      what is not in the image; only read
 *      data: disk.raw         the data, if the image has it in another file
 */
import type { Driver, Given } from '../driver.js';
import { FusetapError } from '../errors.js';
import { FORMAT_FILE, requireDisk } from '../image.js';
import { takeOptions } from '../options.js';
import { readOnlyDisk, writableDisk } from './disk.js';
import { checkWritable, type Header, isDirty, readHeader } from './format/header.js';
import { findSnapshot } from './format/snapshots.js';
import { makeSound } from './make-sound.js';
import { findNeeds } from './needs.js';

const qcow2 = {
  name: 'qcow2',
  roles: {
    ...FORMAT_FILE,
    backing: { takes: 'disk', access: 'read', isOptional: true },
    data: { takes: 'disk', access: 'as-parent', isOptional: true },
  },
  base: 'backing',
  grows: true,
  check: (options) => takeOptions('qcow2', options, ['snapshot']),
  needs: findNeeds,
  repair: makeSound,
  async open({ disks, readOnly, options, isRepaired }) {
    const image = requireDisk({ disks }, 'qcow2');
    const header = await readHeader(image);
    const { backing = null } = disks;
    checkComplete(header, disks);
    const { snapshot: wanted } = options;
    const parts = { image, header, backing, data: disks.data ?? image, isRepaired };
    if (wanted !== undefined) {
      if (!readOnly) throw onlyRead(wanted);
      const { l1, size } = await findSnapshot(image, header, wanted);
      return readOnlyDisk({ ...parts, l1, size });
    }
    const whole = { ...parts, l1: header.l1, size: header.size };
    if (readOnly) return readOnlyDisk(whole);
    if (!isRepaired) checkWritable(header);
    if (isDirty(header) && !isRepaired) {
      throw new FusetapError('DENIED', 'it was not closed cleanly, and was not repaired at this attach', {
        hint: 'detach it, and attach it again',
      });
    }
    return writableDisk(whole);
  },
} satisfies Driver;

function checkComplete({ backing, hasDataFile }: Header, disks: Given['disks']): void {
  if (backing !== null && disks.backing === undefined) throw notGiven('backing file');
  if (hasDataFile && disks.data === undefined) throw notGiven('data file');
}

function notGiven(what: string): FusetapError {
  return new FusetapError('NOT_FOUND', `its ${what} was not given`);
}

function onlyRead(snapshot: string): FusetapError {
  return new FusetapError('USAGE', `the snapshot ${snapshot} of an image can only be read`, {
    hint: 'attach it with mode r, or write to memory: --snapshot',
  });
}

export default qcow2;
