/** CRC-32C (Castagnoli), which Node does not have: its `zlib.crc32` uses another polynomial. */

/** the polynomial 0x1edc6f41, with its bits reversed */
const REVERSED_POLYNOMIAL = 0x82f63b78;

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = (value & 1) === 0 ? value >>> 1 : (value >>> 1) ^ REVERSED_POLYNOMIAL;
  return value;
});

/** @param before the checksum of the bytes before, if these go on; default: they are the first */
export function crc32c(bytes: Uint8Array, before = 0): number {
  let value = ~before;
  // an index: an iterator takes three times as long
  for (let i = 0; i < bytes.length; i++) {
    value = (TABLE[(value ^ (bytes[i] as number)) & 0xff] as number) ^ (value >>> 8);
  }
  return ~value >>> 0;
}

const CHECKSUM_AT = 4;
const NO_CHECKSUM = Buffer.alloc(4);

/** The checksum of a structure of VHDX: its field at byte 4 counts as zeros. */
export function structureChecksum(bytes: Uint8Array): number {
  const first = crc32c(NO_CHECKSUM, crc32c(bytes.subarray(0, CHECKSUM_AT)));
  return crc32c(bytes.subarray(CHECKSUM_AT + NO_CHECKSUM.length), first);
}

export function hasRightChecksum(bytes: Buffer): boolean {
  return bytes.readUInt32LE(CHECKSUM_AT) === structureChecksum(bytes);
}
