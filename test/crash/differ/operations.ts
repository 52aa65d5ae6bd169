/** Random operations that a driver of ours and QEMU do in the same way. */
import type { Random } from '../../../scripts/lib/torture/second-faults/random.js';

export type Operation =
  | { readonly kind: 'write'; readonly offset: number; readonly length: number; readonly byte: number }
  /** makes zeros; with `punch` the space is freed, if possible */
  | { readonly kind: 'zero'; readonly offset: number; readonly length: number; readonly punch: boolean }
  /** whole units only: QEMU leaves the rest as it is */
  | { readonly kind: 'discard'; readonly offset: number; readonly length: number }
  | { readonly kind: 'read'; readonly offset: number; readonly length: number }
  | { readonly kind: 'flush' };

export interface OperationShape {
  readonly size: number;
  /** bytes that are allocated together */
  readonly unitBytes: number;
  /** the format frees space for `discard` of QEMU, which then reads as zeros */
  readonly canDiscard: boolean;
}

const SECTOR = 512;
const MOST_BYTES = 3 << 20;

export function randomOperation(shape: OperationShape, random: Random): Operation {
  const kind = random.below(20);
  if (kind === 0) return { kind: 'flush' };
  if (kind < 4 && shape.canDiscard) return { kind: 'discard', ...units(shape, random) };
  const range = anyRange(shape, random);
  if (kind < 13) return { kind: 'write', ...range, byte: random.pick([0, 255, random.below(256), random.below(256)]) };
  if (kind < 17) return { kind: 'zero', ...range, punch: random.isOneIn(2) };
  return { kind: 'read', ...range };
}

/** Whole units, up to the end of the disk. */
function units({ size, unitBytes }: OperationShape, random: Random): { offset: number; length: number } {
  const count = Math.ceil(size / unitBytes);
  const first = random.below(count);
  const offset = first * unitBytes;
  return { offset, length: Math.min((random.below(random.pick([1, 3, 8])) + 1) * unitBytes, size - offset) };
}

/** A range whose ends are at units, at sectors, or anywhere. */
function anyRange({ size, unitBytes }: OperationShape, random: Random): { offset: number; length: number } {
  const grid = random.pick([1, SECTOR, unitBytes, unitBytes]);
  const near = random.pick([
    random.below(size),
    random.below(Math.min(size, 6 * unitBytes)),
    size - 1 - random.below(SECTOR),
  ]);
  const offset = near - (near % grid);
  const wanted = random.pick([
    1 + random.below(SECTOR),
    SECTOR * (1 + random.below(9)),
    unitBytes,
    unitBytes * (1 + random.below(4)),
    1 + random.below(3 * unitBytes),
  ]);
  return { offset, length: Math.min(wanted, size - offset, MOST_BYTES) };
}

/** Does an operation to the model of the disk. */
export function applyToModel(model: Buffer, operation: Operation): void {
  if (operation.kind === 'flush' || operation.kind === 'read') return;
  const { offset, length } = operation;
  model.fill(operation.kind === 'write' ? operation.byte : 0, offset, offset + length);
}

/** The command of qemu-io; null for reads, which the comparison at the end replaces. */
export function commandOf(operation: Operation): string | null {
  if (operation.kind === 'flush') return 'flush';
  const { kind, offset, length } = operation;
  if (kind === 'read') return null;
  if (kind === 'write') return `write -q -P ${operation.byte} ${offset} ${length}`;
  if (kind === 'discard') return `discard -q ${offset} ${length}`;
  return `write -q -z ${operation.punch ? '-u ' : ''}${offset} ${length}`;
}

export function describeOperation(operation: Operation): string {
  return commandOf(operation) ?? `read ${'offset' in operation ? `${operation.offset} ${operation.length}` : ''}`;
}
