/** Images in memory, for hostile input: a parser may read only within bounds, and a disk must lie inside its files. */
import assert from 'node:assert/strict';
import type { Arbitrary } from 'fast-check';
import fc from 'fast-check';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import type { RawDisk } from '../../../drivers/driver.js';
import { FusetapError } from '../../../drivers/errors.js';
import { bufferDisk } from '../../conformance/buffer-disk.js';

/** no driver reads, or allocates, more at once: 1 MiB is the largest descriptor */
const MOST_READ_BYTES = 1 << 20;
/** no image of these tests has so many blocks that a parser needs more reads */
const MOST_READS = 10_000;

/** What a driver over these bytes is opened with. */
export function contextOver(bytes: Buffer) {
  return {
    files: {},
    disks: { file: diskOf(bytes) },
    memory: null,
    state: null,
    readOnly: false,
    isRepaired: true,
    options: {},
  };
}

/** A disk of bytes that claims to be one segment, as a file is. */
export function diskOf(bytes: Buffer, fd = 7): Disk {
  let reads = 0;
  const raw: RawDisk = {
    ...bufferDisk(bytes),
    segments: [{ offset: 0, fd, start: 0, size: bytes.length, kind: 'file', readOnly: false, durable: false }],
    async read(buffer, offset) {
      reads += 1;
      assert.ok(buffer.length <= MOST_READ_BYTES, `a read of ${buffer.length} bytes`);
      assert.ok(reads <= MOST_READS, 'too many reads');
      buffer.set(bytes.subarray(offset, offset + buffer.length));
    },
  };
  return frontDisk(raw, { readOnly: false });
}

/**
 * Opens hostile images: either it is refused in one line, or the segments of the disk lie inside the images.
 * @param sizes of the images, by descriptor
 * @returns whether it was opened
 */
export async function refusesOrServes(
  open: () => Promise<RawDisk>,
  sizes: ReadonlyMap<number, number>,
): Promise<boolean> {
  let disk: RawDisk;
  try {
    disk = await open();
  } catch (error) {
    assert.ok(error instanceof FusetapError, `threw ${String((error as Error).stack)}`);
    assert.ok(!/[\n\r\0]/.test(error.message) && error.message.length < 400, `the message ${error.message}`);
    assert.ok(error.hint !== undefined, `no hint: ${error.message}`);
    return false;
  }
  assert.ok(Number.isSafeInteger(disk.size) && disk.size > 0, `a disk of ${disk.size} bytes`);
  for (const { fd, start, size } of disk.segments ?? []) {
    assert.ok(start >= 0 && size > 0 && start + size <= (sizes.get(fd) ?? -1), `bytes ${start} + ${size} of a file`);
  }
  return true;
}

/** Numbers that are likely to break a parser. */
const UNUSUAL = [0, 1, 2, 3, 511, 512, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff];

/** A valid image with some bytes and words replaced, and its end cut off or not. */
export function mutated(valid: Buffer, places: readonly number[]): Arbitrary<Buffer> {
  const place = fc.oneof(fc.constantFrom(...places), fc.nat({ max: Math.min(valid.length, 2048) - 1 }));
  const word = fc.oneof(fc.constantFrom(...UNUSUAL), fc.nat({ max: 0xffff }), fc.integer({ min: 0, max: 0xffffffff }));
  const edit = fc.record({ at: place, word, bigEndian: fc.boolean(), bytes: fc.constantFrom(1, 2, 4) });
  const cut = fc.oneof({ weight: 4, arbitrary: fc.constant(valid.length) }, fc.nat({ max: valid.length }));
  return fc.record({ edits: fc.array(edit, { minLength: 1, maxLength: 4 }), cut }).map(({ edits, cut: length }) => {
    const bytes = Buffer.from(valid);
    for (const { at, word: value, bigEndian, bytes: count } of edits) {
      const from = Math.min(at, bytes.length - count);
      const part = count === 4 ? value : value % 2 ** (8 * count);
      if (bigEndian) bytes.writeUIntBE(part, from, count);
      else bytes.writeUIntLE(part, from, count);
    }
    return Buffer.from(bytes.subarray(0, Math.max(1, length)));
  });
}

/** Any bytes, with or without a valid beginning. */
export function randomImage(beginning: Uint8Array): Arbitrary<Buffer> {
  const any = fc.uint8Array({ minLength: 1, maxLength: 3000 }).map((bytes) => Buffer.from(bytes));
  return fc.oneof(
    any,
    any.map((rest) => Buffer.concat([beginning, rest])),
  );
}

export const seed = Number(process.env.FUSETAP_TEST_SEED ?? Date.now() % 2 ** 31);
