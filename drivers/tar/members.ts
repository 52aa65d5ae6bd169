/**
 * The members of a tar archive, one after the other: headers are read, data is skipped. What is remembered does not grow
 * with the archive. Each step goes forward by a block at least, so the end is always reached.
 *
 *      [pax or GNU header of the next member][its data] … [header][data] … two blocks of zeros
 */
import type { Disk } from '../disk.js';
import { broken } from '../formats/faults.js';
import { readUpTo } from '../formats/read.js';
import { BLOCK_BYTES, parseTarHeader, type TarHeader, textAt } from './header.js';
import { type PaxRecords, parsePax } from './pax.js';

/** the data of headers that describe the next member: paths, attributes */
const MOST_HEADER_BYTES = 1 << 20;
/** small members are read together */
const CHUNK_BYTES = 1 << 16;

/** `file`: its bytes are in the archive as they are */
export type MemberKind = 'file' | 'sparse' | 'link' | 'other';

export interface Member {
  readonly name: string;
  readonly kind: MemberKind;
  /** its bytes in the archive */
  readonly start: number;
  readonly size: number;
}

/** Links, devices, directories and pipes have no data, whatever their size field says. */
const WITHOUT_DATA = /[1-6]/;
const REGULAR = ['\0', '0', '7'];

/**
 * Calls `visit` with each member. An archive may have a million, so there is no promise for each.
 * @throws FusetapError FAILED if the archive is damaged
 */
export async function visitMembers(archive: Disk, visit: (member: Member) => void): Promise<void> {
  const blocks = new Blocks(archive);
  let shared: PaxRecords = {};
  let next: PaxRecords = {};
  for (let at = 0; ; ) {
    const block = blocks.has(at) ? blocks.loaded(at) : await blocks.at(at);
    const header = block && parseTarHeader(block, at);
    if (header === null) return;
    const { type } = header;
    at += BLOCK_BYTES;
    if (/[xXgLK]/.test(type)) {
      const data = await readHeaderData(archive, at, header);
      if (type === 'g') shared = { ...shared, ...parsePax(data) };
      else if (type === 'L') next = { ...next, path: textAt(data, 0, data.length) };
      else if (type !== 'K') next = { ...next, ...parsePax(data) };
      at += padded(header.size);
      continue;
    }
    if (type === 'S' && header.isExtended) at = await blocks.endOfSparseMap(at);
    const member = memberAt(at, header, { ...shared, ...next });
    if (at + member.size > archive.size) throw isCut(at + member.size, archive);
    visit(member);
    at += padded(member.size);
    next = {};
  }
}

function memberAt(start: number, header: TarHeader, { path, size, isSparse = false }: PaxRecords): Member {
  const { type } = header;
  const name = path ?? header.name;
  if (WITHOUT_DATA.test(type)) return { name, kind: type === '1' ? 'link' : 'other', start, size: 0 };
  const kind = isSparse || type === 'S' ? 'sparse' : REGULAR.includes(type) && !name.endsWith('/') ? 'file' : 'other';
  return { name, kind, start, size: size ?? header.size };
}

async function readHeaderData(archive: Disk, at: number, { size }: TarHeader): Promise<Buffer> {
  if (size > MOST_HEADER_BYTES) throw broken('tar archive', `a header in it has ${size} bytes, more than 1 MiB`);
  if (at + size > archive.size) throw isCut(at + size, archive);
  return readUpTo(archive, at, size);
}

function padded(size: number): number {
  return Math.ceil(size / BLOCK_BYTES) * BLOCK_BYTES;
}

function isCut(end: number, { size }: Disk): Error {
  return broken('tar archive', `a member ends at byte ${end}, and the archive has ${size} bytes`);
}

/** The blocks of an archive, read in chunks into one buffer: a block is valid until the next is read. */
class Blocks {
  readonly #archive: Disk;
  readonly #buffer = Buffer.alloc(CHUNK_BYTES);
  /** what the buffer has: bytes `start` to `end` of the archive */
  #start = 0;
  #end = 0;

  constructor(archive: Disk) {
    this.#archive = archive;
  }

  /** null at the end of the archive, also for a part of a block */
  async at(at: number): Promise<Buffer | null> {
    if (at + BLOCK_BYTES > this.#archive.size) return null;
    if (!this.has(at)) {
      this.#end = at + (await this.#archive.read(this.#buffer, at));
      this.#start = at;
    }
    return this.loaded(at);
  }

  /** Whether a block is in the buffer. */
  has(at: number): boolean {
    return at >= this.#start && at + BLOCK_BYTES <= this.#end;
  }

  /** A block that is in the buffer. */
  loaded(at: number): Buffer {
    return this.#buffer.subarray(at - this.#start, at - this.#start + BLOCK_BYTES);
  }

  /** Where the blocks of a sparse map of GNU end: each says whether another follows. */
  async endOfSparseMap(from: number): Promise<number> {
    for (let at = from; ; at += BLOCK_BYTES) {
      const block = await this.at(at);
      if (block === null) throw isCut(at + BLOCK_BYTES, this.#archive);
      if (block.readUInt8(504) === 0) return at + BLOCK_BYTES;
    }
  }
}
