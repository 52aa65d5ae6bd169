/**
 * vmdk: the disk of a VMDK whose extents are flat, as ESXi and VMware Workstation make them. The image is the descriptor, a
 * text that names the files of the disk. The disk is these files one after the other, so threads serve it, unless a part
 * of it is in no file.
 *
 *      file: disk.vmdk                      the descriptor, never written
 *      extent0: disk-f001.vmdk              part of the disk
 *      extent1: disk-f002.vmdk
 */
import { constants } from 'node:os';
import { type Disk, frontDisk } from '../disk.js';
import type { Driver, Given } from '../driver.js';
import { FusetapError } from '../errors.js';
import { broken, unsupported } from '../formats/faults.js';
import { readUpTo } from '../formats/read.js';
import { wrongFormat } from '../formats/wrong-format.js';
import { MOST_FILES } from '../graph.js';
import { FORMAT_FILE, requireDisk } from '../image.js';
import { takeOptions } from '../options.js';
import { quoted } from '../quote.js';
import { type DiskPart, joinDisks } from '../segments/join-disks.js';
import { type Descriptor, type Extent, FIRST_LINE, MOST_DESCRIPTOR_BYTES, parseDescriptor } from './descriptor.js';

/** the files of a disk, without the descriptor */
const MOST_EXTENT_FILES = MOST_FILES - 1;

const vmdk = {
  name: 'vmdk',
  roles: {
    file: { ...FORMAT_FILE.file, access: 'read' },
    extent: { takes: 'disk', access: 'as-parent', isOptional: true, many: true },
  },
  check: (options) => takeOptions('vmdk', options, []),
  async needs({ disks }) {
    const { names } = await readDescriptor(requireDisk({ disks }, 'vmdk'));
    return names.map((name, file) => ({ role: `extent${file}`, name, driver: 'aio' }));
  },
  async open({ disks, readOnly }) {
    const descriptor = await readDescriptor(requireDisk({ disks }, 'vmdk'));
    if (descriptor.isTracked && !readOnly) {
      throw new FusetapError('DENIED', 'changes of this VMDK are tracked (CBT), and a write here would not be', {
        hint: 'attach it with mode r',
      });
    }
    return joinDisks(descriptor.extents.map((extent) => partOf(extent, descriptor, disks)));
  },
} satisfies Driver;

async function readDescriptor(image: Disk): Promise<Descriptor> {
  const first = await readUpTo(image, 0, FIRST_LINE.length);
  const magic = first.subarray(0, 4).toString('latin1');
  if (magic === 'KDMV' || magic === 'COWD') {
    throw unsupported('it is a sparse VMDK: only a descriptor of flat extents is served');
  }
  if (first.toString('latin1').toLowerCase() !== FIRST_LINE) throw await wrongFormat(image, 'the descriptor of a VMDK');
  if (image.size > MOST_DESCRIPTOR_BYTES)
    throw broken('VMDK descriptor', `it has ${image.size} bytes, more than 1 MiB`);
  const descriptor = parseDescriptor(await readUpTo(image, 0, MOST_DESCRIPTOR_BYTES));
  if (descriptor.names.length <= MOST_EXTENT_FILES) return descriptor;
  throw unsupported(`it is a VMDK of ${descriptor.names.length} files: at most ${MOST_EXTENT_FILES} are served`);
}

function partOf({ access, place, size }: Extent, { names }: Descriptor, disks: Given['disks']): DiskPart {
  if (access === 'none') return { disk: withoutAccess(size), start: 0, size, readOnly: true };
  if (place === null) return { disk: null, start: 0, size };
  const name = quoted(names[place.file] ?? '');
  const disk = disks[`extent${place.file}`];
  if (disk === undefined) throw new FusetapError('NOT_FOUND', `the extent ${name} was not given`);
  if (place.start + size > disk.size) {
    throw broken('VMDK', `its extent ${name} ends at byte ${place.start + size}, and the file has ${disk.size} bytes`);
  }
  return { disk, start: place.start, size, readOnly: access === 'read' };
}

/** A part of a disk that clients may not even read. */
function withoutAccess(size: number): Disk {
  const refuse = async (): Promise<never> => {
    throw new FusetapError('DENIED', 'the VMDK allows no access to this part of the disk', {
      errno: constants.errno.EIO,
    });
  };
  return frontDisk({ size, read: refuse, close: async () => {} }, { readOnly: true });
}

export default vmdk;
