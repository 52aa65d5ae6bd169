/**
 * The parent locator: where the parent of a differencing image is, in keys and values in UTF-16, little-endian:
 *
 *       0 16  type, the guid of VHDX      entries of 12 bytes from byte 20:
 *      18  2  entries                     4 and 4  where key and value begin   2 and 2  their bytes
 */
import { broken, unsupported } from '../formats/faults.js';
import { guidAt } from './guid.js';

const HEAD_BYTES = 20;
const ENTRY_BYTES = 12;
const VHDX_TYPE = 'b04aefb7-d19e-4a81-b789-25b8e9445913';

export interface ParentLocator {
  /** the DataWriteGuid that the parent must have is one of these */
  readonly linkages: readonly string[];
  /** from the directory of the image, with slashes; null if it is not stated. Hostile input */
  readonly relativePath: string | null;
  /** paths of Windows, for messages; hostile input */
  readonly otherPaths: readonly string[];
}

/** @throws FusetapError FAILED it is damaged; UNSUPPORTED it is of another type */
export function parseLocator(bytes: Buffer): ParentLocator {
  if (bytes.length < HEAD_BYTES) throw broken('VHDX', `its parent locator has ${bytes.length} bytes`);
  const type = guidAt(bytes, 0);
  if (type !== VHDX_TYPE) throw unsupported(`its parent locator has the type ${type}, which is not known here`);
  const values = readValues(bytes);
  const linkages = ['parent_linkage', 'parent_linkage2'].flatMap((key) => guidIn(values.get(key)));
  if (linkages.length === 0)
    throw broken('VHDX', 'its parent locator does not say which parent it is (parent_linkage)');
  return {
    linkages,
    relativePath: values.get('relative_path')?.replaceAll('\\', '/') || null,
    otherPaths: ['absolute_win32_path', 'volume_path'].flatMap((key) => values.get(key) ?? []),
  };
}

function readValues(bytes: Buffer): Map<string, string> {
  const count = bytes.readUInt16LE(18);
  if (HEAD_BYTES + count * ENTRY_BYTES > bytes.length) throw broken('VHDX', `its parent locator has ${count} entries`);
  const values = new Map<string, string>();
  const textAt = (offset: number, length: number): string => {
    if (offset + length <= bytes.length) return bytes.toString('utf16le', offset, offset + length);
    throw broken('VHDX', `its parent locator has a text of ${length} bytes at byte ${offset}, after its end`);
  };
  for (let i = 0; i < count; i++) {
    const at = HEAD_BYTES + i * ENTRY_BYTES;
    const key = textAt(bytes.readUInt32LE(at), bytes.readUInt16LE(at + 8));
    values.set(key, textAt(bytes.readUInt32LE(at + 4), bytes.readUInt16LE(at + 10)));
  }
  return values;
}

/** A guid as text, in braces or not. */
function guidIn(text: string | undefined): string[] {
  const [guid] = /[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}/i.exec(text ?? '') ?? [];
  return guid === undefined ? [] : [guid.toLowerCase()];
}
