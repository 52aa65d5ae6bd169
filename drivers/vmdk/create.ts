/**
 * Makes VMDKs with one sparse extent (monolithicSparse), laid out as qemu-img and VMware's programs do it:
 *
 *      header │ descriptor │ redundant directory, copies of all tables │ directory, all tables │ grains of 64 KiB
 *
 * All tables are there from the beginning, as a hole of the file.
 */
import { randomBytes } from 'node:crypto';
import type { Creator, NewImage } from '../creating/creator.js';
import { newFileDisk } from '../creating/new-file.js';
import { chosen, takeOnly } from '../creating/options.js';
import { FusetapError } from '../errors.js';
import { quoted } from '../quote.js';
import { SECTOR_BYTES } from './descriptor.js';
import { bytesOf, ENTRY_BYTES } from './read-tables.js';

const GRAIN_SECTORS = 128;
const TABLE_ENTRIES = 512;
const TABLE_SECTORS = (TABLE_ENTRIES * ENTRY_BYTES) / SECTOR_BYTES;
const DESCRIPTOR_AT = 1;
const DESCRIPTOR_SECTORS = 20;
/** sectors have numbers of 32 bits, and tables need room */
const MOST_BYTES = 2040 * 2 ** 30;
/** newlines, redundant tables */
const FLAGS = 3;
const ZERO_GRAINS = 4;
/** of the geometry that QEMU writes: IDE */
const [HEADS, TRACK_SECTORS] = [16, 63];

/** of a file whose name cannot be stated */
const OTHER_NAME = 'disk.vmdk';

const creator = {
  check(image) {
    return planImage(image).size;
  },
  async write(fd, image) {
    const plan = planImage(image);
    const { redundant, directory, end } = plan.places;
    const file = await newFileDisk(fd, end * SECTOR_BYTES);
    await file.write(headerOf(plan), 0);
    await file.write(plan.descriptor, DESCRIPTOR_AT * SECTOR_BYTES);
    for (const at of [redundant, directory]) await file.write(directoryAt(at, plan), at * SECTOR_BYTES);
  },
} satisfies Creator;

export default creator;

/** In sectors. */
interface Places {
  readonly redundant: number;
  readonly directory: number;
  /** behind all tables */
  readonly end: number;
}

interface Plan {
  /** bytes */
  readonly size: number;
  readonly tables: number;
  readonly places: Places;
  readonly descriptor: Buffer;
  readonly hasZeroGrains: boolean;
}

function planImage({ size: wanted, name = OTHER_NAME, backing, options }: NewImage): Plan {
  takeOnly('vmdk', options, ['zeroed_grain']);
  const hasZeroGrains = chosen(options, 'zeroed_grain', ['off', 'on']) === 'on';
  const sectors = Math.ceil(wanted / SECTOR_BYTES);
  const size = sectors * SECTOR_BYTES;
  if (size > MOST_BYTES)
    throw new FusetapError('USAGE', 'the disk of a VMDK has at most 2040 GiB here', { hint: 'give a smaller SIZE' });
  const tables = Math.ceil(sectors / (GRAIN_SECTORS * TABLE_ENTRIES));
  const descriptor = Buffer.from(descriptorOf(sectors, name, backing), 'utf8');
  if (descriptor.length > DESCRIPTOR_SECTORS * SECTOR_BYTES)
    throw new FusetapError('USAGE', 'the name of the backing file is too long for a VMDK', {
      hint: 'give a shorter one',
    });
  return { size, tables, places: placesOf(tables), descriptor, hasZeroGrains };
}

function placesOf(tables: number): Places {
  const redundant = DESCRIPTOR_AT + DESCRIPTOR_SECTORS;
  const length = directorySectors(tables) + tables * TABLE_SECTORS;
  const directory = redundant + length;
  return { redundant, directory, end: Math.ceil((directory + length) / GRAIN_SECTORS) * GRAIN_SECTORS };
}

function directorySectors(tables: number): number {
  return Math.ceil((tables * ENTRY_BYTES) / SECTOR_BYTES);
}

/** A directory whose tables follow it. */
function directoryAt(at: number, { tables }: Plan): Buffer {
  const first = at + directorySectors(tables);
  return bytesOf(Uint32Array.from({ length: tables }, (_, index) => first + index * TABLE_SECTORS));
}

function headerOf({ size, places, hasZeroGrains }: Plan): Buffer {
  const header = Buffer.alloc(SECTOR_BYTES);
  header.write('KDMV', 0, 'latin1');
  header.writeUInt32LE(hasZeroGrains ? 2 : 1, 4);
  header.writeUInt32LE(hasZeroGrains ? FLAGS | ZERO_GRAINS : FLAGS, 8);
  const numbers: readonly (readonly [at: number, sectors: number])[] = [
    [12, size / SECTOR_BYTES],
    [20, GRAIN_SECTORS],
    [28, DESCRIPTOR_AT],
    [36, DESCRIPTOR_SECTORS],
    [48, places.redundant],
    [56, places.directory],
    [64, places.end],
  ];
  for (const [at, sectors] of numbers) header.writeBigUInt64LE(BigInt(sectors), at);
  header.writeUInt32LE(TABLE_ENTRIES, 44);
  header.write('\n \r\n', 73, 'latin1');
  return header;
}

function descriptorOf(sectors: number, name: string, backing: NewImage['backing']): string {
  const parent = backing === null ? { cid: 'ffffffff', lines: [] } : parentOf(backing);
  const lines = [
    '# Disk DescriptorFile',
    'version=1',
    'encoding="UTF-8"',
    `CID=${newCid()}`,
    `parentCID=${parent.cid}`,
    'createType="monolithicSparse"',
    ...parent.lines,
    '',
    '# Extent description',
    // libvmdk looks for this file; others know that it was renamed
    `RW ${sectors} SPARSE "${isPlain(name) ? name : OTHER_NAME}"`,
    '',
    '# The Disk Data Base',
    '#DDB',
    '',
    'ddb.virtualHWVersion = "4"',
    `ddb.geometry.cylinders = "${Math.floor(sectors / (HEADS * TRACK_SECTORS))}"`,
    `ddb.geometry.heads = "${HEADS}"`,
    `ddb.geometry.sectors = "${TRACK_SECTORS}"`,
    'ddb.adapterType = "ide"',
    '',
  ];
  return lines.join('\n');
}

function parentOf({ name, identity = null }: NonNullable<NewImage['backing']>): { cid: string; lines: string[] } {
  if (identity === null)
    throw new FusetapError('FAILED', 'the backing file has no content id', { hint: 'use a VMDK that has one' });
  if (!isPlain(name))
    throw new FusetapError('USAGE', `a VMDK cannot name the backing file ${quoted(name)}`, { hint: 'rename it' });
  return { cid: identity, lines: [`parentFileNameHint="${name}"`] };
}

/** A descriptor has no way to write a quote in a name. */
function isPlain(name: string): boolean {
  return !/["\p{Cc}]/u.test(name);
}

/** The one of all ones says that there is no parent. */
function newCid(): string {
  const cid = randomBytes(4).toString('hex');
  return cid === 'ffffffff' ? newCid() : cid;
}
