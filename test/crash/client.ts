/** The requests of a situation: sends them to a disk, and logs when they began and when they were acknowledged. */
import type { Disk } from '../../drivers/disk.js';
import { FusetapError } from '../../drivers/errors.js';
import { patternBytes } from '../conformance/pattern.js';
import { type Expectation, type Request, SECTOR_BYTES, type Wish } from './expectation.js';

/** disks are compared one after the other, so one buffer is enough */
const chunk = Buffer.alloc(1 << 18);

/** What a situation may do with a disk. Requests may overlap in time; they are cut at the end of the disk. */
export interface Client {
  /** bytes of the disk */
  readonly size: number;
  /** @param seed of the pattern that is written */
  write(offset: number, length: number, seed: number, options?: { readonly durable?: boolean }): Promise<void>;
  zero(
    offset: number,
    length: number,
    options?: { readonly punch?: boolean; readonly durable?: boolean },
  ): Promise<void>;
  flush(): Promise<void>;
  /** Moves what the disk has over its base into the base. */
  commit(): Promise<void>;
  /** Reads and compares. @throws Error if a sector has bytes that it cannot have */
  read(offset: number, length: number): Promise<void>;
}

/** A fault that the harness found. */
export class CrashFault extends Error {}

export class LoggedClient implements Client {
  readonly #disk: Disk;
  readonly #log: Expectation;
  readonly #canFail: boolean;

  /** @param canFail an error of the disk is expected: the request counts as not acknowledged */
  constructor(disk: Disk, log: Expectation, { canFail = false } = {}) {
    this.#disk = disk;
    this.#log = log;
    this.#canFail = canFail;
  }

  get size(): number {
    return this.#log.size;
  }

  async write(offset: number, wanted: number, seed: number, { durable = false } = {}): Promise<void> {
    const length = this.#inside(offset, wanted);
    const bytes = patternOf(offset, length, seed);
    await this.send(this.#log.begin({ kind: 'write', offset, length, bytes, punch: false, durable }));
  }

  async zero(offset: number, wanted: number, { punch = true, durable = false } = {}): Promise<void> {
    const length = this.#inside(offset, wanted);
    await this.send(this.#log.begin({ kind: 'zero', offset, length, bytes: null, punch, durable }));
  }

  async flush(): Promise<void> {
    const flush = this.#log.beginFlush();
    if (await this.#try(() => this.#disk.flush())) this.#log.endFlush(flush);
  }

  async commit(): Promise<void> {
    const { signal } = new AbortController();
    await this.#try(() => this.#disk.commit({ signal, progress: () => {} }));
  }

  async read(offset: number, length: number): Promise<void> {
    const from = offset - (offset % SECTOR_BYTES);
    const to = Math.min(this.size, Math.ceil((offset + length) / SECTOR_BYTES) * SECTOR_BYTES);
    const bytes = Buffer.alloc(to - from);
    const began = this.#log.event;
    if (!(await this.#try(async () => void (await this.#disk.read(bytes, from))))) return;
    const wrong = this.#log.compare(bytes, from, 'kill', began);
    if (wrong !== null) throw new CrashFault(`a read while the server lives: ${wrong}`);
  }

  /** Sends a request of the log, perhaps again. */
  async send(request: Request): Promise<void> {
    if (await this.#try(() => sendTo(this.#disk, request))) this.#log.acknowledge(request);
  }

  /** Sends all requests again that were not acknowledged, as the kernel does for a new server. */
  async resend(): Promise<void> {
    await Promise.all(this.#log.waiting.map((request) => this.send(request)));
  }

  #inside(offset: number, length: number): number {
    return Math.min(length, this.size - offset);
  }

  async #try(work: () => Promise<void>): Promise<boolean> {
    try {
      await work();
      return true;
    } catch (error) {
      if (this.#canFail && error instanceof FusetapError) return false;
      throw error;
    }
  }
}

/** situations run again and again with the same patterns */
const patterns = new Map<string, Buffer>();
const MOST_PATTERNS = 500;

/** The bytes of a pattern; kept. */
export function patternOf(offset: number, length: number, seed: number): Buffer {
  const key = `${offset} ${length} ${seed}`;
  const bytes = patterns.get(key) ?? patternBytes(offset, length, seed);
  if (patterns.size >= MOST_PATTERNS) patterns.clear();
  patterns.set(key, bytes);
  return bytes;
}

async function sendTo(disk: Disk, { kind, offset, length, bytes, punch, durable }: Wish): Promise<void> {
  if (kind === 'zero') return disk.zero(offset, length, { punch, durable });
  const sent = Buffer.from(bytes as Buffer);
  const count = await disk.write(sent, offset, { durable });
  if (count !== length) throw new CrashFault(`write ${offset}+${length} wrote ${count} bytes`);
}

/**
 * Compares all of a disk with what it may contain.
 * @param seen is given all bytes of the disk
 * @throws CrashFault that begins with `when`
 */
export async function compareDisk(
  disk: Disk,
  log: Pick<Expectation, 'size' | 'compare'>,
  when: string,
  seen?: Buffer,
): Promise<void> {
  if (disk.size !== log.size) throw new CrashFault(`${when}: the disk has ${disk.size} bytes, not ${log.size}`);
  for (let at = 0; at < disk.size; at += chunk.length) {
    const part = chunk.subarray(0, Math.min(chunk.length, disk.size - at));
    const count = await disk.read(part, at);
    if (count !== part.length) throw new CrashFault(`${when}: read ${at}+${part.length} gave ${count} bytes`);
    const wrong = log.compare(part, at);
    if (wrong !== null) throw new CrashFault(`${when}: ${wrong}`);
    if (seen !== undefined) part.copy(seen, at);
  }
}
