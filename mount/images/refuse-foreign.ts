/** Refuses an image that is attached as raw and looks like another format: one write could ruin it. */
import { read } from 'node:fs';
import { promisify } from 'node:util';
import type { FilterSpec } from '../../drivers/filters/filter.js';
import { type ForeignFormat, notRaw, PROBED_BYTES, recognizeForeign } from '../../drivers/formats/foreign.js';

const readAsync = promisify(read);

/**
 * Which ends of an image to check for the marks of other formats, such as qcow2. The last end has a mark in formats that
 * append a footer.
 */
export type RecognizedEnds = 'both' | 'first' | 'neither';

/** The ends of an image that a disk behind filters shows: only these can make it look like another format. */
export function endsShown(filters: readonly FilterSpec[]): RecognizedEnds {
  if (filters.some(({ name }) => name === 'offset')) return 'neither';
  return filters.some(({ name }) => name === 'sizelimit') ? 'first' : 'both';
}

/** @throws FusetapError USAGE if the image is recognized as another format than raw */
export async function refuseForeign(
  fd: number,
  sizeBytes: number,
  { path, recognize }: { readonly path: string; readonly recognize: RecognizedEnds },
): Promise<void> {
  const format = await recognizeFile(fd, sizeBytes, recognize);
  if (format !== null) throw notRaw(path, format);
}

/** What an image looks like; null if nothing says that it is not raw. @param preferred see recognizeForeign */
export async function recognizeFile(
  fd: number,
  sizeBytes: number,
  recognize: RecognizedEnds = 'both',
  preferred?: string,
): Promise<ForeignFormat | null> {
  if (recognize === 'neither') return null;
  const length = Math.min(PROBED_BYTES, sizeBytes);
  const first = await readEnd(fd, length, 0);
  const last = recognize === 'both' ? await readEnd(fd, length, sizeBytes - length) : new Uint8Array();
  return recognizeForeign(first, last, preferred);
}

/** @returns fewer bytes if the image cannot be read there; the first read of the vbd then reports the error */
async function readEnd(fd: number, length: number, offset: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  const { bytesRead } = await readAsync(fd, bytes, 0, length, offset).catch(() => ({ bytesRead: 0 }));
  return bytes.subarray(0, bytesRead);
}
