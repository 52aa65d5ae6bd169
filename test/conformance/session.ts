/** A disk under test, from factory to disposal, and reads that check the bytes around their buffer. */
import assert from 'node:assert/strict';
import { type Disk, frontDisk } from '../../drivers/disk.js';
import type { DiskFactory, DiskRequest, TestDisk } from './suite.js';

export interface Session {
  /** the front of the open disk; a new one after `reopen` */
  disk: Disk;
  readonly made: TestDisk;
  /** Closes the disk and opens it again, if the factory can. */
  reopen(): Promise<void>;
}

/** Runs a test on a new disk, and always cleans up. */
export async function withDisk(
  factory: DiskFactory,
  request: Partial<DiskRequest> & { size: number },
  body: (session: Session) => Promise<void>,
): Promise<void> {
  const readOnly = request.readOnly ?? false;
  const made = await factory({ pieces: [], ...request, readOnly });
  await made.raw.activate?.();
  const session: Session = {
    disk: frontDisk(made.raw, { readOnly }),
    made,
    async reopen() {
      if (!made.reopen) return;
      await session.disk.close();
      const raw = await made.reopen();
      await raw.activate?.();
      session.disk = frontDisk(raw, { readOnly });
    },
  };
  try {
    await body(session);
  } finally {
    await session.disk.close();
    await made.dispose();
  }
}

const GUARD_BYTES = 16;
const GUARD = 0xee;

/** Reads, and fails if the disk wrote more bytes than it returned as a count. Returns the bytes that were read. */
export async function readGuarded(disk: Disk, offset: number, length: number): Promise<Buffer> {
  const memory = Buffer.alloc(length + 2 * GUARD_BYTES, GUARD);
  const n = await disk.read(memory.subarray(GUARD_BYTES, GUARD_BYTES + length), offset);
  assert.ok(n <= length, `read at ${offset} of ${length} bytes gave ${n}`);
  const around = Buffer.concat([memory.subarray(0, GUARD_BYTES), memory.subarray(GUARD_BYTES + n)]);
  const isTouched = !around.equals(Buffer.alloc(around.length, GUARD));
  assert.ok(!isTouched, `read at ${offset} of ${length} bytes wrote outside of the ${n} it gave`);
  return memory.subarray(GUARD_BYTES, GUARD_BYTES + n);
}

/** Compares buffers, and reports only the first difference: a diff of megabytes helps nobody. */
export function assertSameBytes(actual: Uint8Array, expected: Uint8Array, offset: number, what: string): void {
  assert.equal(actual.length, expected.length, `${what}: length`);
  if (Buffer.compare(actual, expected) === 0) return;
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  assert.fail(`${what}: byte ${offset + at} is ${actual[at]}, not ${expected[at]}`);
}

/** Checks the code and the errno of an expected error. */
export function failsWith(code: string, errno: number): (error: unknown) => boolean {
  return (error) => {
    const { code: actualCode, errno: actualErrno } = error as { code?: unknown; errno?: unknown };
    assert.deepEqual({ code: actualCode, errno: actualErrno }, { code, errno }, `error was ${String(error)}`);
    return true;
  };
}
