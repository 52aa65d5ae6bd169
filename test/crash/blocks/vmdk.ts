/** Sparse VMDKs to put under test, with small grains and tables; and their judge, which shares no code with the driver. */
import { loadDriver } from '../../../drivers/registry.js';
import { patternBytes } from '../../conformance/pattern.js';
import { type Grain, hostedVmdk, type SparseFields } from '../../drivers/images/sparse-vmdk.js';
import { vmdkDescriptor } from '../../drivers/images/vmdk.js';
import { withIdentity } from '../identity.js';
import { SparseBytes } from '../sparse-bytes.js';
import type { Judge, Subject } from '../subject.js';
import { type Files, fileOf } from '../tape.js';

const GRAIN = 4096;
const ENTRIES = 16;
const SIZE = 40 * GRAIN + 1536;
const GRAINS = 41;
const TABLES = Math.ceil(GRAINS / ENTRIES);
const PARENT = '0badcafe';
const CID = /^CID=([\da-f]{8})$/m;

const data = (grain: number): Buffer => patternBytes(0, GRAIN, grain);
const grainsOf = (...numbers: readonly number[]): [number, Grain][] => numbers.map((each) => [each, data(each)]);

interface Kind {
  readonly fields?: Partial<SparseFields>;
  readonly grains: readonly (readonly [grain: number, bytes: Grain])[];
  /** bytes of the parent */
  readonly backing?: number;
  /** changes the image */
  readonly change?: (image: Buffer, copies: number) => void;
  /** bytes that a killed server has written, and nothing refers to */
  readonly tail?: number;
}

const KINDS: Readonly<Record<string, Kind>> = {
  'empty, as QEMU makes it': { fields: { redundant: true, allTables: true }, grains: [] },
  'with tables that are missing': { fields: { redundant: true }, grains: grainsOf(3, 0, 40) },
  'without copies of its tables': { fields: { flags: 0x5 }, grains: [...grainsOf(17, 2), [5, 'zeros']] },
  // the last program was killed after it had written the copy
  'not closed, with a copy that has too much': {
    fields: { redundant: true, allTables: true, change: (header) => header.writeUInt8(1, 72) },
    grains: grainsOf(3, 20),
    tail: 5000,
    change: (image, copies) => {
      const table = image.readUInt32LE(copies) * 512;
      image.writeUInt32LE(image.readUInt32LE(table + 4 * 3), table + 4 * 7);
    },
  },
  'over a parent': {
    fields: { redundant: true, flags: 0x3, version: 1 },
    grains: grainsOf(3, 5),
    backing: 9 * GRAIN + 1024,
  },
  'over a parent, with entries for zeros': {
    fields: { redundant: true, version: 2 },
    grains: [...grainsOf(1, 30), [2, 'zeros'], [4, 'zeros']],
    backing: 38 * GRAIN,
  },
};

export async function vmdkSubjects(): Promise<Subject[]> {
  const driver = await loadDriver('vmdk');
  return Object.entries(KINDS).map(([name, { fields, grains, backing, change = () => {}, tail = 0 }]): Subject => {
    const content = new SparseBytes(SIZE);
    const below = backing === undefined ? null : patternBytes(0, backing, 99);
    if (below !== null) content.write(below, 0);
    for (const [grain, bytes] of grains) {
      const shown = Buffer.isBuffer(bytes) ? bytes : Buffer.alloc(GRAIN);
      content.write(shown.subarray(0, Math.min(GRAIN, SIZE - grain * GRAIN)), grain * GRAIN);
    }
    const settings = below === null ? {} : { parent: PARENT, settings: ['parentFileNameHint="base.vmdk"'] };
    const descriptor = vmdkDescriptor([`RW ${SIZE / 512} SPARSE "a.vmdk"`], { type: 'monolithicSparse', ...settings });
    const made = hostedVmdk(new Map(grains), {
      size: SIZE,
      grainBytes: GRAIN,
      entries: ENTRIES,
      descriptor,
      ...fields,
    });
    const image = Buffer.concat([made.bytes, Buffer.alloc(tail, 0xee)]);
    change(image, Number(image.readBigUInt64LE(48)) * 512);
    const files: Files = {
      file: SparseBytes.from(image),
      ...(below && { backing: SparseBytes.from(below) }),
    };
    return {
      ...{ name: `vmdk, ${name}`, content, unitBytes: GRAIN, tableBytes: ENTRIES * GRAIN, files },
      driver: below === null ? driver : withIdentity(driver, PARENT),
      judge: judgeOf(look(files)),
    };
  });
}

/** What an image says. */
interface Look {
  readonly cid: string | undefined;
  readonly isUnclean: boolean;
  /** entries of all grains, by the tables, and by their copies */
  readonly entries: readonly number[];
  readonly copies: readonly number[] | null;
  readonly tables: readonly number[];
  readonly copyTables: readonly number[];
  readonly data: readonly (Buffer | null)[];
  /** headers and directories end there */
  readonly headersEnd: number;
  readonly size: number;
}

function look(files: Files): Look {
  const file = fileOf(files, 'file');
  const read = (offset: number, length: number): Buffer => {
    const bytes = Buffer.alloc(length);
    if (offset + length <= file.size) file.read(bytes, offset);
    return bytes;
  };
  const words = (offset: number, count: number): number[] => {
    const bytes = read(offset, 4 * count);
    return Array.from({ length: count }, (_, at) => bytes.readUInt32LE(4 * at));
  };
  const header = read(0, 512);
  const sectors = (at: number): number => Number(header.readBigUInt64LE(at)) * 512;
  const entriesOf = (tables: readonly number[]): number[] => {
    return tables
      .flatMap((table) => (table === 0 ? words(0, 0).concat(NO_TABLE) : words(table * 512, ENTRIES)))
      .slice(0, GRAINS);
  };
  const hasCopies = (header.readUInt32LE(8) & 2) !== 0;
  const hasZeros = (header.readUInt32LE(8) & 4) !== 0;
  const tables = words(sectors(56), TABLES);
  const copyTables = hasCopies ? words(sectors(48), TABLES) : [];
  const entries = entriesOf(tables);
  return {
    ...{ tables, copyTables, entries, copies: hasCopies ? entriesOf(copyTables) : null, size: file.size },
    cid: CID.exec(read(sectors(28), sectors(36)).toString('latin1'))?.[1],
    isUnclean: header.readUInt8(72) !== 0,
    data: entries.map((entry) => (entry > (hasZeros ? 1 : 0) ? read(entry * 512, GRAIN) : null)),
    headersEnd: Math.max(
      512,
      sectors(28) + sectors(36),
      sectors(56) + 4 * TABLES,
      hasCopies ? sectors(48) + 4 * TABLES : 0,
    ),
  };
}

const NO_TABLE: readonly number[] = Array.from({ length: ENTRIES }, () => 0);

/** @param start the image at first */
function judgeOf(start: Look): Judge {
  return async (files, { wasKilled }) => {
    const now = look(files);
    const faults: string[] = [];
    if (now.isUnclean && !wasKilled) faults.push('it is not closed, after a clean end');
    if (now.copies !== null && !wasKilled && !isSame(now.copies, now.entries)) faults.push('tables and copies differ');
    for (const [index, table] of now.tables.entries()) {
      if (table !== 0 && now.copyTables[index] === 0) faults.push(`table ${index} has no copy`);
    }
    if (!now.isUnclean && now.copies !== null && !isSame(now.copies, now.entries))
      faults.push('a difference is not marked');
    faults.push(...overlaps(now));
    const isChanged =
      !isSame(now.entries, start.entries) || now.data.some((bytes, at) => !isSameData(bytes, start.data[at]));
    if (isChanged && now.cid === start.cid) faults.push('it was written, and its content id is the old one');
    if (now.cid === undefined) faults.push('its content id is damaged');
    return faults;
  };
}

function isSame(one: readonly number[], other: readonly number[]): boolean {
  return one.every((entry, at) => entry === other[at]);
}

function isSameData(one: Buffer | null, other: Buffer | null | undefined): boolean {
  return one === null || other === null || other === undefined ? one === other : one.equals(other);
}

function overlaps({ tables, copyTables, entries, data: bytes, headersEnd, size }: Look): string[] {
  const faults: string[] = [];
  const places = [
    ...[...tables, ...copyTables].filter((table) => table !== 0).map((table) => ({ at: table * 512, length: 512 })),
    ...entries.filter((_, grain) => bytes[grain] !== null).map((entry) => ({ at: entry * 512, length: GRAIN })),
  ];
  let end = headersEnd;
  for (const { at, length } of places.sort((a, b) => a.at - b.at)) {
    if (at < end) faults.push(`what is at byte ${at} overlaps what is before it`);
    end = at + length;
  }
  if (end > Math.ceil(size / GRAIN) * GRAIN) faults.push('a table or a grain is outside of the image');
  return faults;
}
