/**
 * A thread of snapshot-race.test.ts: writes its own sector of random granules in place, as thread.ts does, or has the main
 * thread do it, and checks what it reads.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { ASK, DATA, MapLook, type MapTable, WRITABLE } from '../../../../drivers/map/table.js';
import { ThreadGate, type ThreadMemory } from '../../../../mount/fuse/thread/thread-control.js';
import { addressOf, pread, pwrite } from '../../../../system/libc.js';

export const GRANULE = 4096;
export const SECTOR = 512;
/** the version of sectors of the base */
export const OF_BASE = 0xffff_ffff;

export const [RUN, PAUSE, END] = [0, 1, 2];

export interface RaceData {
  readonly memory: ThreadMemory;
  readonly thread: number;
  readonly table: MapTable;
  readonly files: readonly { readonly fd: number; readonly delta: number }[];
  readonly nodeId: number;
  /** the granules that are used; others in each round, so that many are of the base */
  readonly hot: Int32Array;
  /** for each granule: odd while it is zeroed, and one more at each begin and end */
  readonly zeroings: Int32Array;
  /** RUN, PAUSE or END, and the number of threads that have paused */
  readonly phase: Int32Array;
  /** 1 when the main thread has done what this thread asked for, and the bytes */
  readonly answered: Int32Array;
  readonly bytes: Uint8Array;
}

/** What a thread lets the main thread do. */
export interface Asked {
  readonly kind: 'read' | 'write';
  readonly thread: number;
  readonly offset: number;
  readonly length: number;
}

export interface RaceResult {
  readonly inPlace: number;
  readonly asked: number;
  readonly reads: number;
  readonly wrong: readonly string[];
}

/** All words of a sector: its version, and its number, in turn. */
export function fillSector(sector: Uint8Array, number: number, version: number): void {
  const words = new Uint32Array(sector.buffer, sector.byteOffset, SECTOR / 4);
  for (let at = 0; at < words.length; at += 2) {
    words[at] = version;
    words[at + 1] = number + 1;
  }
}

/** The version of a sector; 0 for zeros. @throws Error if it is mixed, or another sector's */
export function versionOf(sector: Uint8Array, number: number): number {
  const words = new Uint32Array(sector.buffer, sector.byteOffset, SECTOR / 4);
  const version = words[0] as number;
  for (let at = 0; at < words.length; at += 2) {
    if (words[at] !== version) throw new Error(`sector ${number} is mixed of ${version} and ${words[at]}`);
    const is = words[at + 1];
    if (is !== (version === 0 ? 0 : number + 1)) throw new Error(`sector ${number} has the bytes of ${Number(is) - 1}`);
  }
  return version;
}

interface Written {
  readonly version: number;
  /** the zeroings of the granule before and after the write */
  readonly before: number;
  readonly after: number;
}

class RaceThread {
  readonly #data: RaceData;
  readonly #gate: ThreadGate;
  readonly #look: MapLook;
  readonly #buffer = new Uint8Array(Buffer.allocUnsafeSlow(GRANULE).buffer);
  readonly #address: number;
  readonly #written = new Map<number, Written>();
  readonly #wrong: string[] = [];
  readonly #count = { inPlace: 0, asked: 0, reads: 0 };
  #version = 0;

  constructor(data: RaceData) {
    this.#data = data;
    this.#gate = new ThreadGate(data.memory, data.thread);
    this.#look = new MapLook(data.table);
    this.#address = addressOf(this.#buffer);
  }

  run(): RaceResult {
    const { phase, hot } = this.#data;
    for (;;) {
      const is = Atomics.load(phase, 0);
      if (is === END) return { ...this.#count, wrong: this.#wrong };
      if (is === PAUSE) {
        Atomics.add(phase, 1, 1);
        Atomics.wait(phase, 0, PAUSE);
        Atomics.sub(phase, 1, 1);
        continue;
      }
      const granule = hot[Math.floor(Math.random() * hot.length)] as number;
      if (Math.random() < 0.5) this.#write(granule);
      else this.#read(granule);
    }
  }

  #write(granule: number): void {
    const { thread, zeroings } = this.#data;
    const number = granule * (GRANULE / SECTOR) + thread;
    const before = Atomics.load(zeroings, granule);
    const version = ++this.#version;
    const sector = this.#buffer.subarray(0, SECTOR);
    fillSector(sector, number, version);
    if (!this.#writeInPlace(number * SECTOR)) {
      this.#data.bytes.set(sector);
      this.#ask({ kind: 'write', thread, offset: number * SECTOR, length: SECTOR });
    }
    this.#written.set(granule, { version, before, after: Atomics.load(zeroings, granule) });
  }

  #writeInPlace(offset: number): boolean {
    this.#gate.enter(this.#data.nodeId);
    const isInPlace = this.#look.run(offset, SECTOR) === WRITABLE;
    if (isInPlace) {
      const { fd, delta } = this.#file();
      const { place } = this.#look;
      // a thread may lose its core here
      if (Math.random() < 0.02) nap();
      if (pwrite(fd, this.#address, SECTOR, place + delta) !== SECTOR) throw new Error('a short write');
      this.#count.inPlace++;
    }
    this.#gate.leave();
    return isInPlace;
  }

  #read(granule: number): void {
    const { zeroings, thread } = this.#data;
    const before = Atomics.load(zeroings, granule);
    this.#load(granule);
    this.#count.reads++;
    const isQuiet = before === Atomics.load(zeroings, granule) && before % 2 === 0;
    this.#checkOwn(granule, before, isQuiet);
    for (let i = 0; i < GRANULE / SECTOR; i++) if (i !== thread) this.#checkOther(granule, i);
  }

  #load(granule: number): void {
    if (this.#readByMap(granule)) return;
    this.#ask({ kind: 'read', thread: this.#data.thread, offset: granule * GRANULE, length: GRANULE });
    this.#buffer.set(this.#data.bytes);
  }

  /** The kernel lets a read see a part of a write at the same time: a sector of another writer may be mixed for a moment. */
  #checkOther(granule: number, index: number): void {
    for (let tries = 0; ; tries++) {
      try {
        return void this.#versionAt(granule, index);
      } catch (error) {
        if (tries === 5) return void this.#wrong.push((error as Error).message);
      }
      nap();
      this.#load(granule);
    }
  }

  #versionAt(granule: number, index: number): number {
    const sector = this.#buffer.subarray(index * SECTOR, (index + 1) * SECTOR);
    return versionOf(sector, granule * (GRANULE / SECTOR) + index);
  }

  #readByMap(granule: number): boolean {
    this.#gate.enter(this.#data.nodeId);
    const state = this.#look.run(granule * GRANULE, GRANULE);
    if (state >= DATA) {
      const { fd, delta } = this.#file();
      const { place } = this.#look;
      if (Math.random() < 0.02) nap();
      if (pread(fd, this.#address, GRANULE, place + delta) !== GRANULE) throw new Error('a short read');
    } else if (state !== ASK) {
      this.#buffer.fill(0);
    }
    this.#gate.leave();
    return state !== ASK;
  }

  #file(): RaceData['files'][number] {
    return this.#data.files[this.#look.file] as RaceData['files'][number];
  }

  /** @param before the zeroings before the read; isQuiet: none began or ended during it */
  #checkOwn(granule: number, before: number, isQuiet: boolean): void {
    const { thread } = this.#data;
    const number = granule * (GRANULE / SECTOR) + thread;
    let version: number;
    try {
      version = this.#versionAt(granule, thread);
    } catch (error) {
      this.#wrong.push((error as Error).message);
      return;
    }
    const written = this.#written.get(granule) ?? { version: OF_BASE, before: 0, after: 0 };
    const isAlone = written.before === written.after && written.after % 2 === 0;
    const isSince = written.after % 2 === 0 && before % 2 === 0 && before > written.after;
    const what = `sector ${number} is version ${version}; ${written.version} was written`;
    if (version !== 0 && version !== written.version) this.#wrong.push(what);
    if (isQuiet && isAlone && before === written.after && version !== written.version) {
      this.#wrong.push(`${what}, and it was not zeroed`);
    }
    if (isSince && version !== 0) this.#wrong.push(`${what}, and it was zeroed since`);
  }

  #ask(asked: Asked): void {
    this.#count.asked++;
    Atomics.store(this.#data.answered, 0, 0);
    parentPort?.postMessage(asked);
    // the main thread may wake it for the answer before this one
    while (Atomics.load(this.#data.answered, 0) === 0) Atomics.wait(this.#data.answered, 0, 0);
  }
}

const napping = new Int32Array(new SharedArrayBuffer(4));
function nap(): void {
  Atomics.wait(napping, 0, 0, 1);
}

if (parentPort !== null && workerData !== null) parentPort.postMessage(new RaceThread(workerData as RaceData).run());
