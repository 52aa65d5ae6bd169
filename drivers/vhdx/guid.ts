/** GUIDs, as Windows stores them: the first three numbers are little-endian. */

export const GUID_BYTES = 16;
export const NO_GUID = '00000000-0000-0000-0000-000000000000';

/** For example `2dc27766-f623-4200-9d64-115e9bfd4a08`. */
export function guidAt(bytes: Buffer, at: number): string {
  const [data1, data2, data3] = [bytes.readUInt32LE(at), bytes.readUInt16LE(at + 4), bytes.readUInt16LE(at + 6)];
  const rest = bytes.toString('hex', at + 8, at + GUID_BYTES);
  return [hex(data1, 8), hex(data2, 4), hex(data3, 4), rest.slice(0, 4), rest.slice(4)].join('-');
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}
