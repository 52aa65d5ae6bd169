/** Joins the extents that a descriptor names to the disk. An extent is a disk of its own: flat, sparse, zeros, or without access. */
import { constants } from 'node:os';
import { type Disk, frontDisk } from '../disk.js';
import type { Given, RawDisk } from '../driver.js';
import { FusetapError } from '../errors.js';
import { narrow } from '../filters/narrow.js';
import { broken } from '../formats/faults.js';
import { withReadOnlyMap } from '../map/read-only-map.js';
import { quoted } from '../quote.js';
import { asRaw, type DiskPart, joinDisks } from '../segments/join-disks.js';
import type { Descriptor, Extent } from './descriptor.js';
import { sparseDisk } from './sparse-disk.js';
import { MOST_DIRECTORY_BYTES, readSparseHeader, type SparseHeader } from './sparse-header.js';

/** of the map of a disk without sparse extents; also what VMware's grains have */
const GRANULE_BYTES = 65_536;

interface OpenedExtent {
  readonly part: DiskPart;
  /** null if it is not sparse */
  readonly header: SparseHeader | null;
}

/** @param backing what snapshots and linked clones take from their parent; null: zeros */
export async function joinExtents(
  descriptor: Descriptor,
  disks: Given['disks'],
  backing: Disk | null,
): Promise<RawDisk> {
  const extents: OpenedExtent[] = [];
  let [offset, directoryBytes] = [0, 0];
  for (const extent of descriptor.extents) {
    const opened = await openExtent(extent, { descriptor, disks, backing: partOfDisk(backing, offset, extent.size) });
    extents.push(opened);
    offset += extent.size;
    directoryBytes += opened.header?.directory.length ?? 0;
    if (directoryBytes > MOST_DIRECTORY_BYTES) throw broken('VMDK', 'its grain directories have more than 32 MiB');
  }
  const disk = joinDisks(extents.map(({ part }) => part));
  const { segments, map, places, write } = disk;
  // what can be written has other places later
  if (segments !== undefined || map !== undefined || places === undefined || write !== undefined) return disk;
  const grains = extents.flatMap(({ header }) => (header === null ? [] : [header.grainBytes]));
  return withReadOnlyMap({ ...disk, places }, Math.min(GRANULE_BYTES, ...grains));
}

/** A part of the parent; null if nothing of it is there. */
function partOfDisk(disk: Disk | null, start: number, size: number): Disk | null {
  if (disk === null || start >= disk.size) return null;
  return frontDisk(narrow(asRaw(disk), start, Math.min(size, disk.size - start)), { readOnly: true });
}

interface Means {
  readonly descriptor: Descriptor;
  readonly disks: Given['disks'];
  /** the part of the parent below the extent */
  readonly backing: Disk | null;
}

async function openExtent(extent: Extent, { descriptor, disks, backing }: Means): Promise<OpenedExtent> {
  const { access, place, size } = extent;
  if (access === 'none') return { part: { disk: withoutAccess(size), start: 0, size, readOnly: true }, header: null };
  if (place === null) return { part: { disk: null, start: 0, size }, header: null };
  const name = quoted(descriptor.names[place.file] ?? '');
  const disk = disks[`extent${place.file}`];
  if (disk === undefined) throw new FusetapError('NOT_FOUND', `the extent ${name} was not given`);
  const shares = descriptor.extents.length;
  if (place.isSparse) return await openSparse({ name, size, disk, backing, shares });
  if (place.start + size > disk.size) {
    throw broken('VMDK', `its extent ${name} ends at byte ${place.start + size}, and the file has ${disk.size} bytes`);
  }
  return { part: { disk, start: place.start, size, readOnly: access === 'read' }, header: null };
}

interface SparseFile {
  readonly name: string;
  /** as the descriptor says */
  readonly size: number;
  readonly disk: Disk;
  readonly backing: Disk | null;
  /** see SparseParts */
  readonly shares: number;
}

async function openSparse({ name, size, disk, backing, shares }: SparseFile): Promise<OpenedExtent> {
  const header = await sayingName(name, () => readSparseHeader(disk));
  if (header === null) throw broken('VMDK', `its extent ${name} is not a sparse one`);
  if (header.size < size) {
    throw broken('VMDK', `its extent ${name} has ${header.size} bytes, and the descriptor says ${size}`);
  }
  const raw = await sparseDisk({ image: disk, header, shares }, backing);
  return { part: { disk: frontDisk(raw, { readOnly: true }), start: 0, size, readOnly: true }, header };
}

/** Adds the name of an extent to the errors of its header. */
async function sayingName<Result>(name: string, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof FusetapError)) throw error;
    const { code, message, hint, errno, operation } = error;
    throw new FusetapError(code, `its extent ${name}: ${message}`, { hint, errno, operation, cause: error });
  }
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
