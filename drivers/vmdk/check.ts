/**
 * Checks a sparse extent. It shares the reading of the header with the driver, and no code with its tables and its writer, so
 * that it can judge them.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Disk } from '../disk.js';
import type { CheckResult, ExamineOptions } from '../examining/examiner.js';
import { Findings } from '../examining/findings.js';
import { readUpTo } from '../formats/read.js';
import { SECTOR_BYTES } from './descriptor.js';
import { copiesOf, HEADER_BYTES, type SparseHeader } from './sparse-header.js';

const ENTRY_BYTES = 4;

interface Piece {
  readonly what: string;
  readonly start: number;
  readonly length: number;
}

/** @throws FusetapError if the image cannot be read; the signal's reason */
export async function checkSparse(
  image: Disk,
  header: SparseHeader,
  options: ExamineOptions = {},
): Promise<CheckResult> {
  const check = new SparseCheck(image, header, options);
  await check.run();
  return check.result();
}

class SparseCheck {
  readonly #image: Disk;
  readonly #header: SparseHeader;
  readonly #options: ExamineOptions;
  readonly #found = new Findings();
  /** headers and tables */
  readonly #pieces: Piece[] = [];
  /** the sectors of grains that are stored as they are: there may be millions */
  readonly #grains = new Sectors();
  /** a copy is not like its table, as a crash leaves it */
  #hasCrashed = false;
  #allocated = 0;
  #fragmented = 0;
  #last: { readonly grain: number; readonly start: number } | null = null;
  #end = 0;

  constructor(image: Disk, header: SparseHeader, options: ExamineOptions) {
    this.#image = image;
    this.#header = header;
    this.#options = options;
  }

  async run(): Promise<void> {
    const { directory, descriptor } = this.#header;
    this.#add('the header', 0, HEADER_BYTES);
    if (descriptor !== null) this.#add('the descriptor', descriptor.offset, descriptor.length);
    this.#add('the grain directory', directory.offset, directory.length);
    const tables = await readUpTo(this.#image, directory.offset, directory.length);
    const copies = await this.#readCopies();
    const count = tables.length / ENTRY_BYTES;
    for (let index = 0; index < count; index++) {
      if (index % 64 === 0) {
        await nextTurn();
        this.#options.signal?.throwIfAborted();
        this.#options.progress?.(index, count);
      }
      const [table, copy] = [tables, copies].map((each) => each?.readUInt32LE(index * ENTRY_BYTES));
      await this.#checkTable(index, table ?? 0, copy);
    }
    this.#checkOverlaps();
  }

  async #readCopies(): Promise<Buffer | null> {
    let region: ReturnType<typeof copiesOf>;
    try {
      region = copiesOf(this.#header, this.#image);
    } catch (error) {
      this.#found.add((error as Error).message);
      return null;
    }
    if (region === null) return null;
    this.#add('the redundant grain directory', region.offset, region.length);
    return await readUpTo(this.#image, region.offset, region.length);
  }

  #add(what: string, start: number, length: number): void {
    this.#pieces.push({ what, start, length });
    this.#endsAt(start + length);
  }

  #endsAt(end: number): void {
    this.#end = Math.max(this.#end, end);
  }

  /** @param copy undefined: tables have no copies */
  async #checkTable(index: number, table: number, copy?: number): Promise<void> {
    const own = await this.#readTable(`grain table ${index}`, table);
    if (copy !== undefined) await this.#compare(index, own, copy);
    const { tableEntries, size, grainBytes } = this.#header;
    const first = index * tableEntries;
    const most = Math.min(tableEntries, Math.ceil(size / grainBytes) - first);
    for (let at = 0; own !== null && at < most; at++) this.#checkGrain(first + at, own.readUInt32LE(at * ENTRY_BYTES));
  }

  /** Null: there is none. */
  async #readTable(what: string, sector: number): Promise<Buffer | null> {
    if (sector === 0) return null;
    const [start, length] = [sector * SECTOR_BYTES, this.#header.tableEntries * ENTRY_BYTES];
    this.#add(what, start, length);
    const bytes = await readUpTo(this.#image, start, length);
    if (bytes.length === length) return bytes;
    this.#found.add(`${what} at byte ${start} is outside of the image of ${this.#image.size} bytes`);
    return null;
  }

  async #compare(index: number, own: Buffer | null, copySector: number): Promise<void> {
    const copy = await this.#readTable(`the copy of grain table ${index}`, copySector);
    if (own === null && copy === null) return;
    if (own !== null && copy === null) return this.#found.add(`grain table ${index} has no copy`);
    if (own !== null && copy?.equals(own)) return;
    this.#hasCrashed = true;
    const isAhead = own === null || this.#namesOthers(own, copy as Buffer);
    // a crash explains it only if the image was not closed
    if (isAhead && !this.#header.isUnclean) this.#found.add(`grain table ${index} and its copy differ`);
  }

  /** Whether a copy has a place that its table does not have. */
  #namesOthers(own: Buffer, copy: Buffer): boolean {
    for (let at = 0; at < copy.length; at += ENTRY_BYTES) {
      const entry = copy.readUInt32LE(at);
      if (entry > 1 && entry !== own.readUInt32LE(at)) return true;
    }
    return false;
  }

  #checkGrain(grain: number, entry: number): void {
    const { hasZeroGrains, isCompressed, grainBytes, size } = this.#header;
    if (entry === 0 || (entry === 1 && hasZeroGrains)) return;
    const start = entry * SECTOR_BYTES;
    const needed = isCompressed ? 1 : Math.min(grainBytes, size - grain * grainBytes);
    this.#allocated += 1;
    const last = this.#last;
    if (last !== null && (last.grain + 1 !== grain || last.start >= start)) this.#fragmented += 1;
    this.#last = { grain, start };
    if (start + needed > this.#image.size) {
      return this.#found.add(`grain ${grain} at byte ${start} is outside of the image of ${this.#image.size} bytes`);
    }
    // how long a compressed grain is says the grain
    this.#endsAt(start + (isCompressed ? needed : grainBytes));
    if (!isCompressed) this.#grains.add(entry);
  }

  #checkOverlaps(): void {
    let [end, before] = [0, ''];
    const follow = (what: string, start: number, length: number): void => {
      if (start < end) this.#found.add(`${what} at byte ${start} overlaps ${before}, which ends at byte ${end}`);
      if (start + length > end) [end, before] = [start + length, what];
    };
    const grains = this.#grains.sorted();
    let next = 0;
    const last = { what: '', start: Number.POSITIVE_INFINITY, length: 0 };
    for (const { what, start, length } of [...this.#pieces.sort((a, b) => a.start - b.start), last]) {
      for (; next < grains.length && (grains[next] as number) * SECTOR_BYTES < start; next++) {
        follow('a grain', (grains[next] as number) * SECTOR_BYTES, this.#header.grainBytes);
      }
      if (what !== '') follow(what, start, length);
    }
  }

  result(): CheckResult {
    const { size, grainBytes, isUnclean, isCompressed } = this.#header;
    const [allocated, fragmented] = [this.#allocated, this.#fragmented];
    return {
      ...{ corruptions: this.#found.lines, corruptionCount: this.#found.count },
      ...{ isDirty: isUnclean || this.#hasCrashed, isMarkedCorrupt: false, beyondEnd: 0, imageEnd: this.#end },
      leaks: { clusters: 0, bytes: 0, ranges: [] },
      clusters: {
        ...{ total: Math.ceil(size / grainBytes), allocated, fragmented },
        compressed: isCompressed ? allocated : 0,
      },
    };
  }
}

/** A list of numbers of 32 bits. */
class Sectors {
  #all = new Uint32Array(1024);
  #count = 0;

  add(sector: number): void {
    if (this.#count === this.#all.length) {
      const larger = new Uint32Array(2 * this.#count);
      larger.set(this.#all);
      this.#all = larger;
    }
    this.#all[this.#count++] = sector;
  }

  sorted(): Uint32Array {
    return this.#all.subarray(0, this.#count).sort();
  }
}
