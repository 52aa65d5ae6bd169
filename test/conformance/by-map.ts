/**
 * A RawDisk that does what threads do with a map: it serves what the map knows from the files of the map, and leaves the
 * rest to the driver. So the suite checks that what the map says is true.
 */
import type { MapView, RawDisk, Window } from '../../drivers/driver.js';
import { ASK, MapLook, WRITABLE, ZEROS } from '../../drivers/map/table.js';
import { readWindow, writeWindow } from '../../drivers/segments/window-sync.js';
import { addressOf, SystemCallError } from '../../system/libc.js';

/** How many requests were served by the map, and by the driver. */
export interface Served {
  byMap: number;
  byDriver: number;
}

export function byMap(raw: RawDisk, counts: Served = { byMap: 0, byDriver: 0 }): RawDisk {
  const view = raw.map;
  if (view === undefined) throw new TypeError('the disk has no map');
  // the driver tells nothing about granules that nobody asks for
  view.map.servedBy({ quiesce: async () => {} });
  const served = new ServedByMap(view);
  return {
    ...raw,
    async read(buffer, offset) {
      const isServed = served.read(buffer, offset);
      counts[isServed ? 'byMap' : 'byDriver']++;
      if (!isServed) await raw.read(buffer, offset);
    },
    ...(raw.write && {
      async write(buffer, offset, options) {
        const isServed = !options.durable && served.write(buffer, offset);
        counts[isServed ? 'byMap' : 'byDriver']++;
        if (!isServed) await raw.write?.(buffer, offset, options);
      },
    }),
  };
}

class ServedByMap {
  readonly #view: MapView;
  readonly #look: MapLook;
  readonly #windows: readonly Window[];

  constructor(view: MapView) {
    this.#view = view;
    this.#look = new MapLook(view.map.table);
    this.#windows = view.map.files.map(({ delta = 0, ...file }) => {
      return { ...file, start: delta, size: Number.MAX_SAFE_INTEGER };
    });
  }

  read(buffer: Uint8Array, offset: number): boolean {
    for (let done = 0; done < buffer.length; ) {
      const state = this.#look.run(this.#view.start + offset + done, buffer.length - done);
      const { length, place } = this.#look;
      if (state === ASK) return false;
      const part = buffer.subarray(done, done + length);
      if (state === ZEROS) part.fill(0);
      else expectCount('read', readWindow(this.#window(), addressOf(part), place, length), length);
      done += length;
    }
    return true;
  }

  write(buffer: Uint8Array, offset: number): boolean {
    const from = this.#view.start + offset;
    const runs: { done: number; length: number; place: number; window: Window }[] = [];
    for (let done = 0; done < buffer.length; ) {
      if (this.#look.run(from + done, buffer.length - done) !== WRITABLE) return false;
      const { length, place } = this.#look;
      runs.push({ done, length, place, window: this.#window() });
      done += length;
    }
    for (const { done, length, place, window } of runs) {
      expectCount('write', writeWindow(window, addressOf(buffer) + done, place, length), length);
    }
    return true;
  }

  #window(): Window {
    return this.#windows[this.#look.file] as Window;
  }
}

function expectCount(operation: string, result: number, expected: number): void {
  if (result < 0) throw new SystemCallError(operation, -result);
  if (result !== expected) throw new Error(`${operation} gave ${result} where ${expected} was asked for`);
}
