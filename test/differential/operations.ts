/** Random operations on a disk: as our driver does them, as qemu-io does them, and what they do to the bytes. */
import type { Disk } from '../../drivers/disk.js';
import type { Random } from '../drivers/qcow2/broken-images.js';
import type { Shape } from './shape.js';

const SECTOR = 512;
const LONGEST = 1 << 20;

export interface Operation {
  /** `unmap` is `write -z -u`. `discard` acts on whole clusters only */
  readonly kind: 'write' | 'zero' | 'unmap' | 'discard' | 'read' | 'flush' | 'reopen';
  readonly offset: number;
  readonly length: number;
  /** up to 255: a byte; above: a file of patterns */
  readonly pattern: number;
}

/** Lengths of the files of patterns: no divisor in common with a cluster, so that a wrong place shows. */
export const PATTERN_FILES = [4099, 65537, 523] as const;
const BYTES = 256;

/** The bytes of a file of patterns: some can be compressed well, and some not. */
export function patternFile(index: number): Buffer {
  const bytes = Buffer.alloc(PATTERN_FILES[index] ?? 1);
  let state = index + 1;
  for (let i = 0; i < bytes.length; i++) {
    state = (state * 48271) % 2147483647;
    bytes[i] = index === 2 ? 65 + (state % 2) : state % 256;
  }
  return bytes;
}

const FILES = PATTERN_FILES.map((_, i) => patternFile(i));

function bytesOf({ length, pattern }: Operation): Buffer {
  return Buffer.alloc(length, pattern < BYTES ? pattern : (FILES[pattern - BYTES] ?? 0));
}

const KINDS = ['write', 'write', 'write', 'write', 'zero', 'unmap', 'discard', 'read', 'read'] as const;

export function randomOperation(shape: Shape, random: Random): Operation {
  const rare = random(40);
  if (rare < 3) return { kind: rare === 0 ? 'reopen' : 'flush', offset: 0, length: 0, pattern: 0 };
  const kind = KINDS[random(KINDS.length)] ?? 'read';
  const { size, clusterBytes } = shape;
  // all of the disk, or a part of few clusters, in which the operations meet
  const near = random(2) === 0 ? size : Math.min(size, 4 * clusterBytes);
  const unit = Math.min(near, [1, SECTOR, Math.max(SECTOR, clusterBytes / 32), clusterBytes][random(4)] as number);
  const offset = unit * random(Math.ceil(near / unit));
  const most = Math.min(size - offset, [SECTOR, 4096, 2 * clusterBytes, LONGEST][random(4)] as number, LONGEST * 4);
  const length = random(3) === 0 ? Math.min(size - offset, unit * (1 + random(3))) : 1 + random(most);
  return { kind, offset, length, pattern: random(BYTES + PATTERN_FILES.length) };
}

/** The bytes that an operation acts on: QEMU ignores a part of a cluster when it discards, but for the last of the disk. */
function touched(
  { kind, offset, length }: Operation,
  { size, clusterBytes }: Shape,
): { offset: number; length: number } {
  if (kind !== 'discard') return { offset, length };
  const from = Math.ceil(offset / clusterBytes) * clusterBytes;
  const end = offset + length === size ? size : Math.floor((offset + length) / clusterBytes) * clusterBytes;
  return { offset: from, length: Math.max(0, end - from) };
}

/** Whether operations can be under way at the same time: their bytes are apart. */
export function areApart(one: Operation, other: Operation): boolean {
  return one.offset + one.length <= other.offset || other.offset + other.length <= one.offset;
}

/** What an operation does to the bytes of a disk. */
export function applyTo(bytes: Buffer, operation: Operation, shape: Shape): void {
  const { offset, length } = touched(operation, shape);
  if (operation.kind === 'write') bytesOf(operation).copy(bytes, offset);
  else if (length > 0 && ['zero', 'unmap', 'discard'].includes(operation.kind)) bytes.fill(0, offset, offset + length);
}

/** Does an operation on our disk. @throws Error for a read of bytes that are wrong */
export async function act(disk: Disk, operation: Operation, shape: Shape, expected: Buffer): Promise<void> {
  const { kind } = operation;
  const { offset, length } = touched(operation, shape);
  if (kind === 'write') await disk.write(bytesOf(operation), offset);
  else if (kind === 'read') await expectBytes(disk, offset, length, expected);
  else if (kind === 'flush') await disk.flush();
  else if (kind !== 'reopen' && length > 0) await disk.zero(offset, length, { punch: kind !== 'zero' });
}

export async function expectBytes(disk: Disk, offset: number, length: number, expected: Buffer): Promise<void> {
  const bytes = Buffer.alloc(length);
  await disk.read(bytes, offset);
  const wanted = expected.subarray(offset, offset + length);
  if (bytes.equals(wanted)) return;
  const at = bytes.findIndex((byte, i) => byte !== wanted[i]);
  throw new Error(`byte ${offset + at} is ${bytes[at]}, not ${wanted[at]}`);
}

/** The command of qemu-io; null for one that it needs not do. */
export function commandOf(operation: Operation): string | null {
  const { kind, offset, length, pattern } = operation;
  const from = pattern < BYTES ? `-P ${pattern}` : `-s pattern-${pattern - BYTES}`;
  if (kind === 'write') return `write -q ${from} ${offset} ${length}`;
  if (kind === 'zero') return `write -q -z ${offset} ${length}`;
  if (kind === 'unmap') return `write -q -z -u ${offset} ${length}`;
  if (kind === 'discard') return `discard -q ${offset} ${length}`;
  return kind === 'flush' ? 'flush' : null;
}
