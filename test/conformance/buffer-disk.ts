/** The smallest disk that keeps the contract, over a Buffer. The front emulates all optional methods. */
import type { RawDisk } from '../../drivers/driver.js';
import { pieceBytes } from './pattern.js';
import type { DiskFactory } from './suite.js';

export function bufferDisk(bytes: Buffer): Required<Pick<RawDisk, 'size' | 'read' | 'write' | 'close'>> {
  return {
    size: bytes.length,
    async read(buffer, offset) {
      buffer.set(bytes.subarray(offset, offset + buffer.length));
    },
    async write(buffer, offset) {
      bytes.set(buffer, offset);
    },
    async close() {},
  };
}

export const bufferFactory: DiskFactory = async ({ size, pieces }) => {
  const bytes = Buffer.alloc(size);
  for (const piece of pieces) pieceBytes(piece).copy(bytes, piece.offset);
  return { raw: bufferDisk(bytes), reopen: async () => bufferDisk(bytes), dispose: async () => {} };
};
