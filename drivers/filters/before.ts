/** A disk over another disk that runs a function before each request: the base of the filters delay and error. */

import type { RawDisk } from '../driver.js';
import { placesOf } from '../map/places.js';
import { cannotZero } from './cannot-zero.js';
import { wrapDisk } from './wrap-disk.js';

export const KINDS = ['read', 'write', 'flush', 'zero'] as const;
export type Kind = (typeof KINDS)[number];

/** A request on its way to the disk; a flush has the range of the whole disk. */
export interface PassingRequest {
  readonly kind: Kind;
  readonly offset: number;
  readonly length: number;
}

/**
 * @param before may wait; if it throws, the request is not passed on. If the disk cannot zero, a zero request passes
 *   here first as a zero, then as the writes that replace it
 */
export function beforeRequests(next: RawDisk, before: (request: PassingRequest) => Promise<void>): RawDisk {
  const { write } = next;
  return wrapDisk(next, {
    // threads would pass by
    ...{ segments: undefined, map: undefined },
    // no driver is above a filter: this is only told to people
    places: placesOf(next),
    async read(buffer, offset) {
      await before({ kind: 'read', offset, length: buffer.byteLength });
      await next.read(buffer, offset);
    },
    async flush() {
      await before({ kind: 'flush', offset: 0, length: next.size });
      await next.flush?.();
    },
    write:
      write &&
      (async (buffer, offset, options) => {
        await before({ kind: 'write', offset, length: buffer.byteLength });
        await next.write?.(buffer, offset, options);
      }),
    zero:
      write &&
      (async (offset, length, options) => {
        await before({ kind: 'zero', offset, length });
        if (!next.zero) throw cannotZero();
        await next.zero(offset, length, options);
      }),
  });
}
