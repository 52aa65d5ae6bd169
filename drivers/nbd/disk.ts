/** An export of an NBD server as a disk: requests of any alignment and length become those that the server takes. */

import { constants } from 'node:os';
import { allDone } from '../all-done.js';
import type { Extent, RawDisk, WriteOptions, ZeroOptions } from '../driver.js';
import { FusetapError } from '../errors.js';
import { RangeLock } from '../map/range-lock.js';
import { Operation, type Range } from './operation.js';
import { ALLOCATION, COMMAND, COMMAND_FLAG, EXPORT_FLAG } from './protocol.js';
import type { FixedFacts, Session } from './session.js';
import type { KeptState } from './takeover/kept-state.js';

const { errno: E } = constants;

/** zeroes and extents at once: their lengths have 32 bits */
const MOST_BYTES = 1 << 30;

export interface NbdDiskWish {
  readonly session: Session;
  readonly state: KeptState;
  readonly facts: FixedFacts;
  readonly readOnly: boolean;
  /** each write is durable before it is acknowledged */
  readonly isDurable: boolean;
  /** the longest write */
  readonly mostWritten: number;
}

export function nbdDisk(wish: NbdDiskWish, close: () => Promise<void>): RawDisk {
  const disk = new NbdDisk(wish);
  const { facts, readOnly, session } = wish;
  return {
    size: facts.size,
    read: (buffer, offset) => disk.read(buffer, offset),
    ...(!readOnly && {
      write: (buffer, offset, options) => disk.write(buffer, offset, options),
      flush: () => disk.flush(),
      zero: (offset, length, options) => disk.zero(offset, length, options),
    }),
    ...(facts.hasExtents && { extents: (offset, length) => disk.extents(offset, length) }),
    giveUp: () => session.giveUp(),
    close,
  };
}

class NbdDisk {
  readonly #session: Session;
  readonly #state: KeptState;
  readonly #facts: FixedFacts;
  readonly #isDurable: boolean;
  readonly #mostWritten: number;
  /** in blocks: no request of ours changes a block while another one reads it to write it back */
  readonly #lock = new RangeLock();

  constructor({ session, state, facts, isDurable, mostWritten }: NbdDiskWish) {
    this.#session = session;
    this.#state = state;
    this.#facts = facts;
    this.#isDurable = isDurable;
    this.#mostWritten = mostWritten;
  }

  async read(buffer: Uint8Array, offset: number): Promise<void> {
    const { start, end } = this.#around(offset, buffer.length);
    if (start === offset && end === offset + buffer.length) return await this.#readBlocks(buffer, offset);
    const blocks = Buffer.allocUnsafe(end - start);
    await this.#readBlocks(blocks, start);
    blocks.copy(buffer, 0, offset - start, offset - start + buffer.length);
  }

  async write(buffer: Uint8Array, offset: number, { durable }: WriteOptions): Promise<void> {
    const { minimumBytes } = this.#facts;
    if (minimumBytes === 1) await this.#writeBlocks(buffer, offset, durable);
    else await this.#locked(offset, buffer.length, () => this.#writeEdges(buffer, offset, durable));
    if (durable || this.#isDurable) await this.#flushUnlessFua();
  }

  /** Writes bytes that may begin and end inside of blocks, which are locked. */
  async #writeEdges(buffer: Uint8Array, offset: number, durable: boolean): Promise<void> {
    const { start, end } = this.#around(offset, buffer.length);
    if (start === offset && end === offset + buffer.length) return await this.#writeBlocks(buffer, offset, durable);
    const { minimumBytes } = this.#facts;
    const blocks = Buffer.allocUnsafe(end - start);
    const last = end - minimumBytes;
    if (start < offset) await this.#readBlocks(blocks.subarray(0, minimumBytes), start);
    const isRead = start < offset && last === start;
    if (offset + buffer.length < end && !isRead) await this.#readBlocks(blocks.subarray(last - start), last);
    blocks.set(buffer, offset - start);
    await this.#writeBlocks(blocks, start, durable, { offset, length: buffer.length });
  }

  async flush(): Promise<void> {
    this.#session.tellLoss();
    // a server that cannot flush has nothing to flush, and what is durable needs none
    if (!this.#can(EXPORT_FLAG.flush) || !this.#state.isUnflushed) return;
    await this.#flush();
    this.#session.tellLoss();
  }

  #flush(): Promise<void> {
    return this.#session.run(new Operation({ command: COMMAND.flush, offset: 0, length: 0 }));
  }

  async zero(offset: number, length: number, options: ZeroOptions): Promise<void> {
    if (!this.#can(EXPORT_FLAG.writeZeroes)) {
      throw new FusetapError('UNSUPPORTED', 'the NBD server cannot write zeroes', { errno: E.EOPNOTSUPP });
    }
    const { minimumBytes } = this.#facts;
    const end = offset + length;
    const first = Math.min(end, offset + ((minimumBytes - (offset % minimumBytes)) % minimumBytes));
    const last = Math.max(first, end - (end % minimumBytes));
    await this.#locked(offset, length, async () => {
      if (first > offset) await this.#writeEdges(Buffer.alloc(first - offset), offset, options.durable);
      if (last > first) await this.#zeroBlocks(first, last, options);
      if (end > last) await this.#writeEdges(Buffer.alloc(end - last), last, options.durable);
    });
    if (options.durable || this.#isDurable) await this.#flushUnlessFua();
  }

  async #zeroBlocks(start: number, end: number, { punch, durable }: ZeroOptions): Promise<void> {
    const flags = (punch ? 0 : COMMAND_FLAG.noHole) | this.#fua(durable);
    for (let offset = start; offset < end; offset += MOST_BYTES) {
      const length = Math.min(MOST_BYTES, end - offset);
      await this.#session.run(new Operation({ command: COMMAND.writeZeroes, flags, offset, length }));
    }
  }

  async extents(offset: number, length: number): Promise<Extent[]> {
    const { start, end } = this.#around(offset, Math.min(length, MOST_BYTES / 2));
    const operation = new Operation({ command: COMMAND.blockStatus, offset: start, length: end - start });
    await this.#session.run(operation);
    let at = start;
    return operation.extents.flatMap((told) => {
      const extent = { offset: at, length: told.length, hole: (told.flags & ALLOCATION.zero) !== 0 };
      at += told.length;
      return extent.offset < this.#facts.size ? [extent] : [];
    });
  }

  async #readBlocks(into: Uint8Array, offset: number): Promise<void> {
    await inParts(into, this.#facts.maximumBytes, (part, at) => {
      const { length } = part;
      return this.#session.run(new Operation({ command: COMMAND.read, offset: offset + at, length, into: part }));
    });
  }

  /** @param asked what a client asked to write, if more is written */
  async #writeBlocks(data: Uint8Array, offset: number, durable: boolean, asked?: Range): Promise<void> {
    const flags = this.#fua(durable);
    await inParts(data, this.#mostWritten, (part, at) => {
      const { length } = part;
      return this.#session.run(
        new Operation({
          command: COMMAND.write,
          flags,
          offset: offset + at,
          length,
          data: part,
          asked,
        }),
      );
    });
  }

  #fua(durable: boolean): number {
    return (durable || this.#isDurable) && this.#can(EXPORT_FLAG.fua) ? COMMAND_FLAG.fua : 0;
  }

  async #flushUnlessFua(): Promise<void> {
    if (!this.#can(EXPORT_FLAG.fua) && this.#can(EXPORT_FLAG.flush)) await this.#flush();
  }

  #can(flag: number): boolean {
    return (this.#facts.flags & flag) !== 0;
  }

  /** The blocks of a range. */
  #around(offset: number, length: number): { start: number; end: number } {
    const { minimumBytes } = this.#facts;
    if (minimumBytes === 1) return { start: offset, end: offset + length };
    const start = offset - (offset % minimumBytes);
    return { start, end: Math.ceil((offset + length) / minimumBytes) * minimumBytes };
  }

  async #locked(offset: number, length: number, work: () => Promise<void>): Promise<void> {
    const { minimumBytes } = this.#facts;
    if (minimumBytes === 1) return await work();
    const first = Math.floor(offset / minimumBytes);
    await this.#lock.run(first, Math.ceil((offset + length) / minimumBytes) - first, work);
  }
}

/** Does the work for each part of so many bytes at most; all parts have ended when it settles. */
async function inParts(
  bytes: Uint8Array,
  mostBytes: number,
  work: (part: Uint8Array, at: number) => Promise<void>,
): Promise<void> {
  if (bytes.length <= mostBytes) return await work(bytes, 0);
  const parts: Promise<void>[] = [];
  for (let at = 0; at < bytes.length; at += mostBytes) {
    parts.push(work(bytes.subarray(at, Math.min(at + mostBytes, bytes.length)), at));
  }
  await allDone(parts);
}
