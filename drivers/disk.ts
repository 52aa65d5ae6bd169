/**
 * The validating front of a disk, which all callers use. Only this file calls a driver's RawDisk. So the rules for
 * every disk (at the end of the disk, on a read-only disk, after close) are written once, and a driver is given only
 * requests that are exact, inside the disk and not empty. Calls that a driver lacks are emulated here.
 */
import { constants } from 'node:os';
import type {
  Change,
  CommitContext,
  Disk,
  Extent,
  Growth,
  LocateOptions,
  MapView,
  Place,
  Places,
  RawDisk,
  Segment,
  WriteOptions,
  ZeroOptions,
} from './driver.js';
import { FusetapError, toFusetapError } from './errors.js';
import { extentsOf, isUnsupported } from './map/extents.js';
import { placesOf } from './map/places.js';

export type { Disk };

const { errno: E } = constants;

/** writes tear only at sector boundaries, also emulated zeroing */
const SECTOR_BYTES = 512;
/** one buffer for all disks: drivers only read it */
const ZEROS = Buffer.alloc(1 << 20);

/**
 * Makes the validating front of a driver's disk. It is read-only if the options say so, if the driver cannot write, or
 * if all that threads would write is read-only.
 *
 * @throws RangeError if the driver reports an invalid size
 */
export function frontDisk(raw: RawDisk, options: { readOnly: boolean }): Disk {
  if (!Number.isSafeInteger(raw.size) || raw.size <= 0) {
    throw new RangeError(`the driver reports a size of ${raw.size} bytes: it must be an integer above 0`);
  }
  const isReadOnly = raw.map?.readOnly ?? raw.segments?.every((segment) => segment.readOnly) ?? false;
  return new FrontDisk(raw, options.readOnly || raw.write === undefined || isReadOnly);
}

class FrontDisk implements Disk {
  readonly readOnly: boolean;
  readonly growth: Growth | undefined;
  readonly segments: readonly Segment[] | undefined;
  readonly map: MapView | undefined;
  readonly places: Places;
  readonly identity: string | undefined;
  readonly #raw: RawDisk;
  #underWay = 0;
  #closed: Promise<void> | undefined;
  #drained: (() => void) | undefined;

  constructor(raw: RawDisk, readOnly: boolean) {
    this.#raw = raw;
    this.readOnly = readOnly;
    this.growth = readOnly || raw.growth === undefined ? undefined : this.#guarded(raw.growth);
    this.segments = raw.segments?.map((segment) => ({ ...segment, readOnly: readOnly || segment.readOnly }));
    this.map = raw.map && { ...raw.map, readOnly };
    this.identity = raw.identity;
    const places = placesOf(raw);
    this.places = { files: places.files, locate: (...range) => this.#locate(places, ...range) };
  }

  /** `growth` changes it */
  get size(): number {
    return this.#raw.size;
  }

  async read(buffer: Uint8Array, offset: number): Promise<number> {
    checkBuffer(buffer);
    checkOffset(offset);
    return this.#run('read', offset, async () => {
      const length = this.#inside(offset, buffer.byteLength);
      if (length > 0) await this.#raw.read(firstBytes(buffer, length), offset);
      return length;
    });
  }

  async write(buffer: Uint8Array, offset: number, options?: Partial<WriteOptions>): Promise<number> {
    checkBuffer(buffer);
    checkOffset(offset);
    return this.#run('write', offset, async () => {
      this.#refuseReadOnly('write', offset);
      if (buffer.byteLength === 0) return 0;
      const length = this.#inside(offset, buffer.byteLength);
      if (length === 0) throw this.#beyondEnd(offset);
      await this.#raw.write?.(firstBytes(buffer, length), offset, { durable: options?.durable ?? false });
      return length;
    });
  }

  async flush(): Promise<void> {
    return this.#run('flush', undefined, async () => this.#raw.flush?.());
  }

  async zero(offset: number, length: number, options?: Partial<ZeroOptions>): Promise<void> {
    checkOffset(offset);
    checkLength(length);
    const { punch = false, durable = false } = options ?? {};
    return this.#run('zero', offset, async () => {
      this.#refuseReadOnly('zero', offset);
      const inside = this.#inside(offset, length);
      if (inside > 0) await this.#zeroInside(offset, inside, { punch, durable });
    });
  }

  async extents(offset: number, length: number): Promise<Extent[]> {
    checkOffset(offset);
    checkLength(length);
    return this.#run('extents', offset, () => extentsOf(this.#raw, offset, this.#inside(offset, length)));
  }

  async #locate(places: Places, offset: number, length: number, options?: LocateOptions): Promise<readonly Place[]> {
    checkOffset(offset);
    checkLength(length);
    return this.#run('locate', offset, async () => {
      const inside = this.#inside(offset, length);
      return inside === 0 ? [] : await places.locate(offset, inside, options);
    });
  }

  async changes(offset: number, length: number): Promise<Change[]> {
    checkOffset(offset);
    checkLength(length);
    return this.#run('changes', offset, async () => {
      if (this.#raw.changes === undefined) throw hasNoBase();
      const inside = this.#inside(offset, length);
      return inside === 0 ? [] : await this.#raw.changes(offset, inside);
    });
  }

  async commit(context: CommitContext): Promise<void> {
    await this.#run('commit', undefined, async () => {
      if (this.#raw.commit === undefined) throw cannotCommit();
      this.#refuseReadOnly('commit');
      await this.#raw.commit(context);
    });
  }

  giveUp(): void {
    this.#raw.giveUp?.();
  }

  close(): Promise<void> {
    this.#closed ??= this.#drain().then(() => this.#raw.close());
    return this.#closed;
  }

  #guarded(growth: Growth): Growth {
    return {
      measure: () => this.#run('measure', undefined, () => growth.measure()),
      grow: async (size) => {
        checkBytes('size', size);
        await this.#run('grow', undefined, async () => growth.grow(size));
      },
    };
  }

  #drain(): Promise<void> {
    return this.#underWay === 0 ? Promise.resolve() : new Promise((resolve) => (this.#drained = resolve));
  }

  async #run<T>(operation: string, offset: number | undefined, work: () => Promise<T>): Promise<T> {
    if (this.#closed) {
      throw new FusetapError('FAILED', `${operation}: the disk is closed`, { errno: E.EBADF, operation, offset });
    }
    this.#underWay++;
    try {
      return await work();
    } catch (error) {
      throw locate(error, operation, offset);
    } finally {
      if (--this.#underWay === 0) this.#drained?.();
    }
  }

  /** how many of the `length` bytes from `offset` are inside the disk */
  #inside(offset: number, length: number): number {
    return Math.max(0, Math.min(length, this.size - offset));
  }

  #refuseReadOnly(operation: string, offset?: number): void {
    if (!this.readOnly) return;
    throw new FusetapError('DENIED', `${placeOf(operation, offset)}: the disk is read-only`, {
      errno: E.EROFS,
      operation,
      offset,
      hint: 'attach it with mode w',
    });
  }

  #beyondEnd(offset: number): FusetapError {
    const message = `write at byte ${offset}: the disk ends at byte ${this.size}`;
    return new FusetapError('NO_SPACE', message, { errno: E.ENOSPC, operation: 'write', offset });
  }

  async #zeroInside(offset: number, length: number, options: ZeroOptions): Promise<void> {
    try {
      if (this.#raw.zero) return await this.#raw.zero(offset, length, options);
    } catch (error) {
      if (!isUnsupported(error)) throw error;
    }
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const next = Math.min(end, at - (at % SECTOR_BYTES) + ZEROS.byteLength);
      await this.#raw.write?.(firstBytes(ZEROS, next - at), at, { durable: options.durable });
      at = next;
    }
  }
}

function hasNoBase(): FusetapError {
  return new FusetapError('UNSUPPORTED', 'the disk has no base from which it could differ', {
    errno: E.EOPNOTSUPP,
    hint: 'use a disk of the driver snapshot',
  });
}

function cannotCommit(): FusetapError {
  return new FusetapError('UNSUPPORTED', 'the disk has no base that its changes could be moved into', {
    errno: E.EOPNOTSUPP,
    hint: 'use a disk of the driver qcow2 with a backing file',
  });
}

/** Adds operation and offset to a driver's error, if the error does not have them. */
function locate(error: unknown, operation: string, offset: number | undefined): unknown {
  if (error instanceof TypeError || error instanceof RangeError) return error;
  if (!(error instanceof FusetapError)) {
    const what = error instanceof Error ? error.message : String(error);
    return toFusetapError(error, `${placeOf(operation, offset)}: ${what}`, { operation, offset });
  }
  if (error.operation !== undefined && (error.offset !== undefined || offset === undefined)) return error;
  const { code, message, hint, errno, path, holders } = error;
  return new FusetapError(code, message, {
    ...{ hint, errno, path, holders },
    operation: error.operation ?? operation,
    offset: error.offset ?? offset,
    cause: error,
  });
}

function placeOf(operation: string, offset: number | undefined): string {
  return offset === undefined ? operation : `${operation} at byte ${offset}`;
}

function firstBytes(buffer: Uint8Array, length: number): Uint8Array {
  return length === buffer.byteLength ? buffer : buffer.subarray(0, length);
}

function checkBuffer(buffer: unknown): void {
  if (!(buffer instanceof Uint8Array)) throw new TypeError(`buffer must be a Uint8Array, not ${typeof buffer}`);
}

function checkOffset(offset: unknown): void {
  checkBytes('offset', offset);
}

function checkLength(length: unknown): void {
  checkBytes('length', length);
}

function checkBytes(name: string, value: unknown): void {
  if (typeof value !== 'number') throw new TypeError(`${name} must be a number of bytes, not ${typeof value}`);
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new RangeError(`${name} must be an integer from 0 to ${Number.MAX_SAFE_INTEGER}, not ${value}`);
  }
}
