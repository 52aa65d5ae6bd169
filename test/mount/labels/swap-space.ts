/** A small disk with a name: swap space, whose header is the simplest. */

/** @param label at most 16 bytes */
export function swapSpace(label: string, uuid = Buffer.alloc(16)) {
  const bytes = Buffer.alloc(64 << 10);
  bytes.write('SWAPSPACE2', 4086, 'latin1');
  bytes.writeUInt32LE(1, 1024);
  bytes.writeUInt32LE(15, 1028);
  uuid.copy(bytes, 1036, 0, 16);
  bytes.write(label, 1052, 16);
  return bytes;
}
