/**
 * The model of a disk: a Buffer. Each operation is done to the disk and to the Buffer, and the results are compared.
 */
import assert from 'node:assert/strict';
import { constants } from 'node:os';
import type { Extent } from '../../drivers/driver.js';
import { fillPattern, type Piece, patternBytes } from './pattern.js';
import { assertSameBytes, failsWith, readGuarded, type Session } from './session.js';

export type Operation =
  | { kind: 'read'; offset: number; length: number }
  | { kind: 'write'; offset: number; length: number; seed: number; durable: boolean }
  | { kind: 'zero'; offset: number; length: number; punch: boolean; durable: boolean }
  | { kind: 'extents'; offset: number; length: number }
  | { kind: 'flush' }
  | { kind: 'reopen' };

/** The bytes of a new disk. */
export function makeModel(size: number, pieces: readonly Piece[]): Buffer {
  const model = Buffer.alloc(size);
  for (const { offset, length, seed } of pieces) fillPattern(model.subarray(offset, offset + length), offset, seed);
  return model;
}

/** Does one operation to the disk and to the model, and fails if the two differ. */
export async function applyOperation(session: Session, model: Buffer, operation: Operation): Promise<void> {
  const { disk } = session;
  switch (operation.kind) {
    case 'read':
      return checkRead(session, model, operation.offset, operation.length);
    case 'write':
      return checkWrite(session, model, operation);
    case 'zero': {
      const { offset, length, punch, durable } = operation;
      await disk.zero(offset, length, { punch, durable });
      if (offset < model.length) model.fill(0, offset, Math.min(model.length, offset + length));
      return;
    }
    case 'extents':
      return checkExtents(session, model, operation.offset, operation.length);
    case 'flush':
      return disk.flush();
    case 'reopen':
      return session.reopen();
  }
}

/** Compares the whole disk with the whole model. */
export async function checkAll(session: Session, model: Buffer): Promise<void> {
  assert.equal(session.disk.size, model.length, 'size');
  await checkRead(session, model, 0, model.length + 1);
  await checkExtents(session, model, 0, model.length);
}

async function checkRead({ disk }: Session, model: Buffer, offset: number, length: number): Promise<void> {
  const bytes = await readGuarded(disk, offset, length);
  assertSameBytes(bytes, model.subarray(offset, offset + length), offset, `read at ${offset} of ${length} bytes`);
}

async function checkWrite(
  { disk }: Session,
  model: Buffer,
  { offset, length, seed, durable }: Operation & { kind: 'write' },
): Promise<void> {
  const bytes = patternBytes(offset, length, seed);
  const writing = disk.write(bytes, offset, { durable });
  if (length > 0 && offset >= model.length) {
    await assert.rejects(writing, failsWith('NO_SPACE', constants.errno.ENOSPC));
    return;
  }
  const expected = Math.max(0, Math.min(length, model.length - offset));
  assert.equal(await writing, expected, `write at ${offset} of ${length} bytes`);
  assertSameBytes(bytes, patternBytes(offset, length, seed), offset, 'the buffer of a write must be left as it was');
  bytes.copy(model, Math.min(offset, model.length), 0, expected);
}

async function checkExtents({ disk }: Session, model: Buffer, offset: number, length: number): Promise<void> {
  const extents = await disk.extents(offset, length);
  checkNormalised(extents, Math.min(offset, model.length), Math.min(offset + length, model.length));
  for (const extent of extents) {
    const bytes = model.subarray(extent.offset, extent.offset + extent.length);
    if (extent.hole) assert.ok(bytes.equals(Buffer.alloc(bytes.length)), `a hole over data at ${extent.offset}`);
  }
}

/** Checks that extents are in order, without gaps, from `from` to `to`, not empty, and that neighbours differ. */
export function checkNormalised(extents: Extent[], from: number, to: number): void {
  let at = from;
  let last: boolean | undefined;
  for (const { offset, length, hole } of extents) {
    assert.equal(offset, at, 'extents are in order and without gaps');
    assert.ok(length > 0, 'no extent is empty');
    assert.notEqual(hole, last, 'neighbours differ');
    at += length;
    last = hole;
  }
  assert.equal(at, to, 'extents cover the range that was asked for, and no more');
}
