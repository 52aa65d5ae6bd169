/** Which VMDKs are written: flat ones in place, and those whose only extent is a plain hosted sparse one (monolithicSparse). */
import type { Disk } from '../disk.js';
import { FusetapError } from '../errors.js';
import type { Descriptor } from './descriptor.js';
import type { WritableParts } from './grain-map.js';
import { ENTRY_BYTES } from './read-tables.js';
import { readVmdk } from './read-vmdk.js';
import type { SparseHeader } from './sparse-header.js';

const ONLY_READ = 'attach it with mode r, or write to memory: --snapshot';
/** a grain over a parent is copied as a whole; usual are 64 KiB */
const GRAIN_BYTES = { least: 4096, most: 2 << 20 };
/** their tables are in memory, 4 bytes a grain: 2 TiB of grains of 64 KiB */
const MOST_GRAINS = 2 ** 25;
const MOST_TABLES = 2 ** 17;
/** QEMU marks images whose entries can be zeros with 2; 3 has changes that are tracked */
const MOST_VERSION = 2;

/** @param header see Vmdk @throws FusetapError DENIED */
export function refuseWrites(image: Disk, descriptor: Descriptor, header: SparseHeader | null): void {
  const why = whyNotWritten(image, descriptor, header);
  if (why !== null) throw new FusetapError('DENIED', why, { hint: ONLY_READ });
}

/** The extent that is written, if the disk is one; null: it is flat, or only read. @throws errors of readVmdk */
export async function writableParts(image: Disk): Promise<WritableParts | null> {
  const { descriptor, header, cidPlace } = await readVmdk(image);
  if (header === null || whyNotWritten(image, descriptor, header) !== null) return null;
  return { image, header, cidPlace };
}

function whyNotWritten(image: Disk, descriptor: Descriptor, header: SparseHeader | null): string | null {
  const { extents, parent, isTracked } = descriptor;
  if (isTracked) return 'changes of this VMDK are tracked (CBT), and a write here would not be';
  if (header !== null) return whyNotSparse(image, header);
  if (extents.some(({ place }) => place?.isSparse)) return 'a VMDK with sparse extents in other files can only be read';
  return parent === null ? null : 'a VMDK with a parent, whose extents are flat, can only be read';
}

function whyNotSparse(image: Disk, header: SparseHeader): string | null {
  const { version, isCompressed, hasMarkers, hasFooter, hasUnknownFlags, size, grainBytes, tableEntries } = header;
  if (isCompressed || hasMarkers || hasFooter) return 'a compressed VMDK (streamOptimized) can only be read';
  if (version > MOST_VERSION || hasUnknownFlags) return `a sparse VMDK of version ${version} can only be read`;
  if (image.readOnly) return 'a VMDK in an OVA can only be read';
  const tables = Math.ceil(size / (grainBytes * tableEntries));
  const isUsual =
    grainBytes >= GRAIN_BYTES.least &&
    grainBytes <= GRAIN_BYTES.most &&
    tableEntries * ENTRY_BYTES <= grainBytes &&
    tables <= MOST_TABLES &&
    tables * tableEntries <= MOST_GRAINS;
  return isUsual ? null : 'a sparse VMDK with these sizes of grains and tables can only be read';
}
