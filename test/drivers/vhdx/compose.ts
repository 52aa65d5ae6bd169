/**
 * Composes VHDX images whose disk has the bytes of a raw image, with blocks of 1 MiB in all states. Wherever the disk must not
 * take its bytes from, there is other data: in the parent, and in the file where the log replaces it.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { patternBytes } from '../../conformance/pattern.js';
import { makeFile } from '../graph-factory.js';
import { BAT_AT, batEntry, type LogChangeFields, logEntry, PAGE, type Parts, u64, vhdxParts } from '../images/vhdx.js';

const MIB = 1 << 20;
const GARBAGE = patternBytes(0, MIB, 99);
const PARENT_GUID = '9a9e0000-0001-0002-0003-00000000000f';

export interface ComposeOptions {
  readonly hasParent?: boolean;
  /** the BAT, and a page in five of each third block, are in the log only */
  readonly hasLog?: boolean;
  readonly sectorBytes?: 512 | 4096;
}

/** @returns the path of the image */
export async function composeVhdx(raw: string, directory: string, options: ComposeOptions): Promise<string> {
  const disk = await readFile(raw);
  const { hasParent = false, hasLog = false, sectorBytes = 512 } = options;
  const image = new Composed(disk, sectorBytes, hasParent);
  const parent = {
    parent_linkage: `{${PARENT_GUID}}`,
    relative_path: '.\\parent.vhdx',
    absolute_win32_path: 'C:\\a\\parent.vhdx',
  };
  const changes: LogChangeFields[] = [];
  if (hasLog) changes.push(...image.intoLog());
  const fields = {
    ...{ size: disk.length, sectorBytes, bat: image.bat },
    ...(hasParent && { parent }),
    ...(hasLog && { log: logOf(changes, image.endMib * MIB) }),
  };
  const head = vhdxParts(fields);
  if (hasLog) head.parts.push([BAT_AT, GARBAGE.subarray(0, PAGE)]);
  if (hasParent) await writeParent(join(directory, 'parent.vhdx'), image.parent, sectorBytes);
  return await makeFile(join(directory, 'child.vhdx'), image.endMib * MIB, ...head.parts, ...image.data);
}

/** Two entries; the first one has old bytes for the first change of the second. */
function logOf(changes: readonly LogChangeFields[], bytes: number): Buffer {
  const [first] = changes;
  const old = { offset: first?.offset ?? 0, page: GARBAGE.subarray(PAGE, 2 * PAGE) };
  const facts = { flushed: bytes, last: bytes };
  return Buffer.concat([
    logEntry({ ...facts, sequence: 41, changes: [old] }),
    logEntry({ ...facts, sequence: 42, changes }),
  ]);
}

async function writeParent(path: string, disk: Buffer, sectorBytes: number): Promise<void> {
  const blocks = Math.ceil(disk.length / MIB);
  const bat = Array.from({ length: blocks }, (_, block) => batEntry(6, 4 + block));
  const { parts } = vhdxParts({ size: disk.length, sectorBytes, bat, header: { dataGuid: PARENT_GUID } });
  await makeFile(path, (4 + blocks) * MIB, ...parts, [4 * MIB, disk]);
}

class Composed {
  readonly bat: bigint[] = [];
  readonly data: Parts = [];
  /** the disk of the parent */
  readonly parent: Buffer;
  endMib = 4;

  constructor(disk: Buffer, sectorBytes: number, hasParent: boolean) {
    const blocks = Math.ceil(disk.length / MIB);
    const chunkBlocks = (2 ** 23 * sectorBytes) / MIB;
    if (blocks > chunkBlocks) throw new RangeError(`${blocks} blocks are more than one chunk`);
    this.parent = Buffer.alloc(disk.length);
    const bitmap = Buffer.alloc(MIB);
    for (let block = 0; block < blocks; block++) {
      const bytes = disk.subarray(block * MIB, (block + 1) * MIB);
      if (hasParent) this.#addOverParent(block, bytes, bitmap, sectorBytes);
      else this.#add(bytes, block);
    }
    if (!hasParent) return;
    while (this.bat.length < chunkBlocks) this.bat.push(0n);
    this.bat.push(this.#place(bitmap, 6));
  }

  /** Zeros are in each of the states that say so. */
  #add(bytes: Buffer, block: number): void {
    const isZeros = bytes.every((byte) => byte === 0);
    this.bat.push(
      isZeros && block % 6 !== 4 ? batEntry([0, 1, 2, 3, 0, 5][block % 6] as number) : this.#place(bytes, 6),
    );
  }

  #addOverParent(block: number, bytes: Buffer, bitmap: Buffer, sectorBytes: number): void {
    const below = this.parent.subarray(block * MIB, block * MIB + bytes.length);
    GARBAGE.copy(below);
    if (bytes.every((byte) => byte === 0) && block % 2 === 1) {
      this.bat.push(batEntry([1, 2, 3, 5][(block >> 1) % 4] as number));
    } else if (block % 3 === 0) {
      bytes.copy(below);
      this.bat.push(batEntry(0));
    } else if (block % 3 === 1) this.bat.push(this.#place(bytes, 6));
    else {
      const own = Buffer.from(bytes);
      for (let at = 0; at < bytes.length; at += sectorBytes) {
        const sector = (block * MIB + at) / sectorBytes;
        const isOwn = isInImage(sector);
        if (isOwn) bitmap[sector >> 3] = (bitmap[sector >> 3] as number) | (1 << (sector & 7));
        else bytes.copy(below, at, at, at + sectorBytes);
        if (!isOwn) GARBAGE.copy(own, at, at, at + sectorBytes);
      }
      this.bat.push(this.#place(own, 7));
    }
  }

  #place(bytes: Buffer, state: number): bigint {
    this.data.push([this.endMib * MIB, Buffer.from(bytes)]);
    this.endMib += 1;
    return batEntry(state, this.endMib - 1);
  }

  /** Moves the first page of the BAT, and pages of blocks, into the log. */
  intoLog(): LogChangeFields[] {
    const bat = Buffer.alloc(PAGE);
    u64(...this.bat.slice(0, PAGE / 8)).copy(bat);
    const changes: LogChangeFields[] = [{ offset: BAT_AT, page: bat }];
    for (const [index, [at, bytes]] of this.data.entries()) {
      for (let page = 0; index % 3 === 0 && (page + 1) * PAGE <= bytes.length && changes.length < 200; page += 5) {
        const place = bytes.subarray(page * PAGE, (page + 1) * PAGE);
        const offset = at + page * PAGE;
        if (place.every((byte) => byte === 0)) changes.push({ offset, zeros: PAGE });
        else changes.push({ offset, page: Buffer.from(place) });
        GARBAGE.copy(place, 0, 0, PAGE);
      }
    }
    return changes;
  }
}

/** Long runs, short runs, and single sectors. */
function isInImage(sector: number): boolean {
  const run = (sector >> 6) % 4;
  if (run === 0) return false;
  if (run === 1) return true;
  return run === 2 ? sector % 2 === 0 : (sector >> 2) % 3 === 0;
}
