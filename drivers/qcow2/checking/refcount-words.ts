/**
 * The refcounts of a block, of 1 to 64 bits. Those of less than 8 bits begin at the least significant bits of a byte; the
 * others are big endian.
 */

/** The largest refcount of a width, as far as a number can be exact. */
export function mostRefcount(order: number): number {
  return order === 6 ? Number.MAX_SAFE_INTEGER : 2 ** (2 ** order) - 1;
}

/** @returns the refcount; above 2^53 it is not exact */
export function getRefcount(bytes: Buffer, order: number, index: number): number {
  if (order >= 3) {
    const width = 2 ** (order - 3);
    const at = index * width;
    if (width < 8) return bytes.readUIntBE(at, width);
    return bytes.readUInt32BE(at) * 2 ** 32 + bytes.readUInt32BE(at + 4);
  }
  const bit = index * 2 ** order;
  return ((bytes[bit >>> 3] as number) >>> (bit & 7)) & (2 ** (2 ** order) - 1);
}

/** @param value at most `mostRefcount` */
export function putRefcount(bytes: Buffer, order: number, { index, value }: { index: number; value: number }): void {
  if (order >= 3) {
    const width = 2 ** (order - 3);
    const at = index * width;
    if (width < 8) bytes.writeUIntBE(value, at, width);
    else bytes.writeBigUInt64BE(BigInt(value), at);
    return;
  }
  const bit = index * 2 ** order;
  const shift = bit & 7;
  const mask = (2 ** (2 ** order) - 1) << shift;
  bytes[bit >>> 3] = ((bytes[bit >>> 3] as number) & ~mask) | (value << shift);
}
