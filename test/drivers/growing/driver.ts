/**
 * A driver of others, for tests: a format whose image grows, and that has to be repaired after a crash. Bytes are allocated
 * in granules at the end of the file.
 *
 *      header (a granule): magic, size of the disk, 1 while the image is open for writing
 *      table: for each granule of the disk the number of its cluster from 1 on, or 0: zeros
 *      clusters
 *
 * What happens is written to the file of the option `log`, one line each. `slow=yes`: repair goes on until it is aborted.
 */
import { appendFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Disk } from '../../../drivers/disk.js';
import type { Driver, RawDisk } from '../../../drivers/driver.js';
import { FusetapError } from '../../../drivers/errors.js';
import { RangeLock } from '../../../drivers/map/range-lock.js';

export const GRANULE = 4096;
const MAGIC = 'GROWING1';
const SIZE_AT = 8;
const DIRTY_AT = 16;
const DIRTY = Buffer.from([1]);
const CLEAN = Buffer.from([0]);

/** The header and the table of an empty image. */
export function emptyImage(sizeBytes: number, dirty = false): Buffer {
  const bytes = Buffer.alloc(clustersAt(sizeBytes));
  bytes.write(MAGIC, 'latin1');
  bytes.writeBigUInt64LE(BigInt(sizeBytes), SIZE_AT);
  bytes[DIRTY_AT] = dirty ? 1 : 0;
  return bytes;
}

function clustersAt(sizeBytes: number): number {
  return GRANULE + Math.ceil((Math.ceil(sizeBytes / GRANULE) * 4) / GRANULE) * GRANULE;
}

const growing = {
  name: 'growing',
  roles: {
    file: { takes: 'disk', access: 'as-parent' },
    backing: { takes: 'disk', access: 'read', isOptional: true },
  },
  grows: true,

  async repair({ disks, options, path, signal, progress }) {
    const file = fileOf(disks);
    const { isDirty } = await readHeader(file);
    log(options, `repair ${path.slice(path.lastIndexOf('/') + 1)} ${isDirty ? 'dirty' : 'clean'}`);
    for (let done = 0; options.slow === 'yes'; done++) {
      progress(done % 100, 100);
      await sleep(10, undefined, { signal });
    }
    if (!isDirty) return [];
    await file.write(CLEAN, DIRTY_AT, { durable: true });
    return ['it was not closed: its table was counted anew'];
  },

  async open({ disks, options, readOnly, isRepaired }) {
    const file = fileOf(disks);
    const { sizeBytes } = await readHeader(file);
    log(options, `open ${readOnly ? 'r' : 'w'} ${isRepaired ? 'repaired' : 'not repaired'}`);
    return new Growing(file, sizeBytes, options).disk(readOnly);
  },
} satisfies Driver;

export default growing;

function fileOf({ file }: Readonly<Record<string, Disk>>): Disk {
  if (file === undefined) throw new TypeError('there is no file');
  return file;
}

async function readHeader(file: Disk): Promise<{ sizeBytes: number; isDirty: boolean }> {
  const bytes = Buffer.alloc(GRANULE);
  await file.read(bytes, 0);
  if (bytes.toString('latin1', 0, MAGIC.length) !== MAGIC) throw new FusetapError('USAGE', 'it is no growing image');
  return { sizeBytes: Number(bytes.readBigUInt64LE(SIZE_AT)), isDirty: bytes[DIRTY_AT] === 1 };
}

function log({ log: path }: Readonly<Record<string, string>>, line: string): void {
  if (path !== undefined) appendFileSync(path, `${line}\n`);
}

class Growing {
  readonly #file: Disk;
  readonly #sizeBytes: number;
  readonly #options: Readonly<Record<string, string>>;
  readonly #lock = new RangeLock();
  readonly #clustersAt: number;
  #table = new Uint32Array(0);
  #next = 1;
  #isDirty = false;

  constructor(file: Disk, sizeBytes: number, options: Readonly<Record<string, string>>) {
    this.#file = file;
    this.#sizeBytes = sizeBytes;
    this.#options = options;
    this.#clustersAt = clustersAt(sizeBytes);
  }

  disk(readOnly: boolean): RawDisk {
    const reading = {
      size: this.#sizeBytes,
      activate: () => this.#activate(),
      read: (buffer: Uint8Array, offset: number) => this.#eachPart(buffer, offset, (...part) => this.#read(...part)),
      close: () => this.#close(),
    };
    if (readOnly) return reading;
    return {
      ...reading,
      write: (buffer, offset) => this.#eachPart(buffer, offset, (...part) => this.#write(...part)),
      flush: () => this.#file.flush(),
    };
  }

  /** Another server may have made the file larger since the attach. */
  async #activate(): Promise<void> {
    const size = (await this.#file.growth?.measure()) ?? this.#file.size;
    log(this.#options, `activate ${size}`);
    const bytes = Buffer.alloc(Math.ceil(this.#sizeBytes / GRANULE) * 4);
    await this.#file.read(bytes, GRANULE);
    this.#table = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    this.#next = 1 + Math.ceil((size - this.#clustersAt) / GRANULE);
  }

  async #eachPart(
    buffer: Uint8Array,
    offset: number,
    serve: (granule: number, part: Uint8Array, skip: number) => Promise<void>,
  ): Promise<void> {
    for (let done = 0; done < buffer.length; ) {
      const skip = (offset + done) % GRANULE;
      const granule = (offset + done - skip) / GRANULE;
      const length = Math.min(buffer.length - done, GRANULE - skip);
      await serve(granule, buffer.subarray(done, done + length), skip);
      done += length;
    }
  }

  #placeOf(cluster: number): number {
    return this.#clustersAt + (cluster - 1) * GRANULE;
  }

  async #read(granule: number, part: Uint8Array, skip: number): Promise<void> {
    const cluster = this.#table[granule] ?? 0;
    if (cluster === 0) part.fill(0);
    else await this.#file.read(part, this.#placeOf(cluster) + skip);
  }

  async #write(granule: number, part: Uint8Array, skip: number): Promise<void> {
    await this.#lock.run(granule, 1, async () => {
      const known = this.#table[granule] ?? 0;
      if (known !== 0) return void (await this.#file.write(part, this.#placeOf(known) + skip));
      if (!this.#isDirty) await this.#file.write(DIRTY, DIRTY_AT, { durable: true });
      this.#isDirty = true;
      const cluster = this.#next++;
      await this.#file.growth?.grow(this.#placeOf(cluster) + GRANULE);
      await this.#file.write(part, this.#placeOf(cluster) + skip);
      const entry = Buffer.alloc(4);
      entry.writeUInt32LE(cluster);
      await this.#file.write(entry, GRANULE + granule * 4);
      this.#table[granule] = cluster;
    });
  }

  async #close(): Promise<void> {
    if (!this.#isDirty) return;
    await this.#file.flush();
    await this.#file.write(CLEAN, DIRTY_AT, { durable: true });
  }
}
