/** Reads what a VMDK says of itself: its descriptor, and the header of its extent if that has the descriptor inside. */
import type { Disk } from '../disk.js';
import { broken } from '../formats/faults.js';
import { readUpTo } from '../formats/read.js';
import { wrongFormat } from '../formats/wrong-format.js';
import {
  type Descriptor,
  FIRST_LINE,
  MOST_DESCRIPTOR_BYTES,
  parseDescriptor,
  parseEmbedded,
  placeOfCid,
} from './descriptor.js';
import { notAlone, type Region, readEmbedded, readSparseHeader, type SparseHeader } from './sparse-header.js';

export interface Vmdk {
  readonly descriptor: Descriptor;
  /** of the image, which is the only extent of the disk; null: the image is a text, and the extents are other files */
  readonly header: SparseHeader | null;
  /** the digits of the content id in the image, if they are inside it; null: it states none */
  readonly cidPlace: Region | null;
}

/** @throws FusetapError USAGE if it is no VMDK; UNSUPPORTED for a variant without driver; FAILED if it is damaged */
export async function readVmdk(image: Disk): Promise<Vmdk> {
  const header = await readSparseHeader(image);
  if (header === null) return { descriptor: await readText(image), header, cidPlace: null };
  const text = await readEmbedded(image, header);
  if (text === null) throw notAlone();
  const place = placeOfCid(text);
  const start = header.descriptor?.offset ?? 0;
  const cidPlace = place && { offset: start + place.offset, length: place.length };
  return { descriptor: parseEmbedded(text), header, cidPlace };
}

async function readText(image: Disk): Promise<Descriptor> {
  const first = await readUpTo(image, 0, FIRST_LINE.length);
  if (first.toString('latin1').toLowerCase() !== FIRST_LINE) throw await wrongFormat(image, 'a VMDK');
  if (image.size > MOST_DESCRIPTOR_BYTES)
    throw broken('VMDK descriptor', `it has ${image.size} bytes, more than 1 MiB`);
  return parseDescriptor(await readUpTo(image, 0, MOST_DESCRIPTOR_BYTES));
}
