/** Whether zeros need not be written, because what is below the image reads as zeros already. */
import type { Part } from '../lookup/part.js';
import type { Reader } from '../lookup/reader.js';

const ZEROS = Buffer.alloc(64 << 10);

/**
 * Whether the backing disk reads as zeros in a range that the image does not have: in holes and behind its end without
 * reading it, else by its bytes, up to the first ones that are not zeros. What cannot be read is not zeros.
 */
export async function isZerosBelow(reader: Reader<Part>, offset: number, length: number): Promise<boolean> {
  const end = offset + length;
  try {
    for (let at = offset; at < end; ) {
      for (const place of await reader.locateBelow(at, end - at, { holes: true })) {
        if (place.state !== 'zeros' && !(await readsAsZeros(reader, at, place.length))) return false;
        at += place.length;
      }
    }
    return true;
  } catch {
    return false;
  }
}

async function readsAsZeros(reader: Reader<Part>, offset: number, length: number): Promise<boolean> {
  const buffer = Buffer.alloc(Math.min(ZEROS.length, length));
  for (let done = 0; done < length; done += buffer.length) {
    const part = buffer.subarray(0, Math.min(buffer.length, length - done));
    await reader.read(part, offset + done);
    if (!part.equals(ZEROS.subarray(0, part.length))) return false;
  }
  return true;
}
