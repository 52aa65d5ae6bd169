/** An image in memory that records what is done to it, so that a test can stop the work after any call. */
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import type { RawDisk } from '../../../drivers/driver.js';
import type { Random } from './broken-images.js';

const SECTOR = 512;

export type Call =
  | { readonly kind: 'write'; readonly offset: number; readonly bytes: Buffer }
  | { readonly kind: 'grow'; readonly size: number }
  | { readonly kind: 'flush' };

export class RecordedImage {
  bytes: Buffer;
  readonly calls: Call[] = [];
  readonly disk: Disk;

  constructor(bytes: Buffer) {
    this.bytes = Buffer.from(bytes);
    const image = this;
    const raw: RawDisk = {
      get size() {
        return image.bytes.length;
      },
      growth: {
        measure: async () => image.bytes.length,
        grow: async (size) => image.#do({ kind: 'grow', size }),
      },
      read: async (buffer, offset) => void image.bytes.copy(buffer, 0, offset, offset + buffer.length),
      write: async (buffer, offset) => image.#do({ kind: 'write', offset, bytes: Buffer.from(buffer) }),
      flush: async () => image.#do({ kind: 'flush' }),
      close: async () => {},
    };
    this.disk = frontDisk(raw, { readOnly: false });
  }

  #do(call: Call): void {
    this.calls.push(call);
    this.bytes = withCall(this.bytes, call);
  }
}

function withCall(bytes: Buffer, call: Call): Buffer {
  if (call.kind === 'grow') return Buffer.concat([bytes], Math.max(bytes.length, call.size));
  if (call.kind === 'write') call.bytes.copy(bytes, call.offset);
  return bytes;
}

/** The image if the process was killed after some calls. */
export function afterKill(start: Buffer, calls: readonly Call[]): Buffer {
  return calls.reduce(withCall, Buffer.from(start));
}

/** The image if the power failed after some calls: of what was not flushed, any sectors are there. */
export function afterPowerCut(start: Buffer, calls: readonly Call[], random: Random): Buffer {
  const flushed = calls.findLastIndex(({ kind }) => kind === 'flush') + 1;
  let bytes = afterKill(start, calls.slice(0, flushed));
  for (const call of calls.slice(flushed)) {
    if (call.kind !== 'write') {
      if (random(2) === 0) bytes = withCall(bytes, call);
      continue;
    }
    for (let at = 0; at < call.bytes.length; at += SECTOR) {
      const part = call.bytes.subarray(at, at + SECTOR);
      if (random(2) === 0 && call.offset + at < bytes.length) part.copy(bytes, call.offset + at);
    }
  }
  return bytes;
}
