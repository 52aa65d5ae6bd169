/** An image in a Ceph cluster as a disk. */

import { ZEROES_THICK } from '../../system/librbd.js';
import { allDone } from '../all-done.js';
import type { Extent, RawDisk, WriteOptions, ZeroOptions } from '../driver.js';
import { hasShrunk } from './faults.js';
import type { DiskFacts } from './kept-state.js';
import { type Room, rooms } from './requests.js';
import type { Session } from './session.js';

/** a longer request is cut: the memory for each part is its own */
const MOST_BYTES = 4 << 20;
const MOST_ZEROES = 1 << 30;
/** where a range has data is looked up in steps: 64 GiB take some 10 ms */
const MOST_ASKED = 64 * (1 << 30);

export interface RbdDiskWish {
  readonly session: Session;
  readonly facts: DiskFacts;
  readonly readOnly: boolean;
}

export function rbdDisk({ session, facts, readOnly }: RbdDiskWish, close: () => Promise<void>): RawDisk {
  const disk = new RbdDisk(session);
  return {
    size: facts.size,
    read: (buffer, offset) => inParts(buffer, offset, (part, at) => disk.read(part, at)),
    ...(!readOnly && {
      write: async (buffer, offset, options) => {
        await inParts(buffer, offset, (part, at) => disk.write(part, at));
        await disk.settle(offset + buffer.length, options);
      },
      flush: () => disk.flush(),
      zero: (offset, length, options) => disk.zero(offset, length, options),
    }),
    ...(facts.hasExtents && { extents: (offset, length) => disk.extents(offset, length) }),
    giveUp: () => session.giveUp(),
    close,
  };
}

function inParts(
  buffer: Uint8Array,
  offset: number,
  work: (part: Uint8Array, offset: number) => Promise<void>,
): Promise<void> {
  if (buffer.length <= MOST_BYTES) return work(buffer, offset);
  const parts: Promise<void>[] = [];
  for (let at = 0; at < buffer.length; at += MOST_BYTES) {
    parts.push(work(buffer.subarray(at, at + MOST_BYTES), offset + at));
  }
  return allDone(parts);
}

class RbdDisk {
  readonly #session: Session;

  constructor(session: Session) {
    this.#session = session;
  }

  async read(buffer: Uint8Array, offset: number): Promise<void> {
    const requests = await this.#session.requests();
    const room = rooms.take(buffer.length);
    const result = await requests.read(room, offset, buffer.length);
    if (result === buffer.length) buffer.set(room.bytes.subarray(0, result));
    rooms.give(room);
    if (this.#session.check(result) !== buffer.length) throw hasShrunk();
    this.#session.checkEnd(offset + buffer.length);
  }

  /** An acknowledged write is durable: there is no cache, and an OSD answers when it has written. */
  async write(buffer: Uint8Array, offset: number): Promise<void> {
    const requests = await this.#session.requests();
    const room: Room = rooms.take(buffer.length);
    room.bytes.set(buffer);
    const result = await requests.write(room, offset, buffer.length);
    rooms.give(room);
    this.#session.check(result);
    this.#session.checkEnd(offset + buffer.length);
  }

  /** A write that was cut may be known only after its end: see Session.checkEnd. */
  async settle(end: number, { durable }: WriteOptions): Promise<void> {
    if (durable) await this.#session.checkSize(end);
  }

  async flush(): Promise<void> {
    const requests = await this.#session.requests();
    // a write that was cut was acknowledged before: the image had shrunk by then
    const [result] = await Promise.all([requests.flush(), this.#session.checkSize()]);
    this.#session.check(result);
  }

  /** rbd_aio_discard would leave parts of blocks as they are; this one is exact. */
  async zero(offset: number, length: number, { punch, durable }: ZeroOptions): Promise<void> {
    const requests = await this.#session.requests();
    const end = offset + length;
    for (let at = offset; at < end; at += MOST_ZEROES) {
      const result = await requests.zero(at, Math.min(MOST_ZEROES, end - at), punch ? 0 : ZEROES_THICK);
      this.#session.check(result);
    }
    this.#session.checkEnd(end);
    await this.settle(end, { durable });
  }

  async extents(offset: number, length: number): Promise<Extent[]> {
    const end = offset + Math.min(length, MOST_ASKED);
    await this.#session.checkSize().catch(() => {});
    this.#session.checkEnd(end);
    const data = await this.#session.data(offset, end - offset);
    const extents: Extent[] = [];
    let at = offset;
    const add = (to: number, hole: boolean): void => {
      if (to > at) extents.push({ offset: at, length: to - at, hole });
      at = Math.max(at, to);
    };
    for (let i = 0; i < data.length; i += 2) {
      const [start = 0, bytes = 0] = data.slice(i, i + 2);
      add(Math.min(start, end), true);
      add(Math.min(start + bytes, end), false);
    }
    add(end, true);
    return extents;
  }
}
