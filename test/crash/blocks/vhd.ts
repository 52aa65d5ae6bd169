/** VHDs to put under test, with small blocks; and their judge, which shares no code with the driver. */
import { loadDriver } from '../../../drivers/registry.js';
import { patternBytes } from '../../conformance/pattern.js';
import { type DynamicFields, dynamicVhd } from '../../drivers/images/vhd.js';
import { SparseBytes } from '../sparse-bytes.js';
import type { Judge, Subject } from '../subject.js';
import { fileOf } from '../tape.js';

const BLOCK = 8192;
const BLOCKS = 21;
const SIZE = BLOCKS * BLOCK - 1536;
const TABLE_AT = 1536;
const NONE = 0xffff_ffff;

const data = (block: number): Buffer => patternBytes(0, BLOCK, block);

/** the first, the third and the last sector */
function someBits(): Buffer {
  const bits = Buffer.alloc(512);
  bits.writeUInt16BE(0b1010_0000_0000_0001, 0);
  return bits;
}

interface Kind {
  readonly fields?: Partial<DynamicFields>;
  readonly placed: readonly { readonly block: number; readonly bits?: Buffer }[];
  /** bytes of a raw image below */
  readonly backing?: number;
}

const KINDS: Readonly<Record<string, Kind>> = {
  empty: { placed: [] },
  'with blocks in any order': { placed: [{ block: 3 }, { block: 0 }, { block: 20 }] },
  'with blocks that lack sectors': { placed: [{ block: 3, bits: someBits() }, { block: 5 }] },
  'of XenServer, not closed': { fields: { hasBatmap: true, hasFooter: false }, placed: [{ block: 2 }] },
  'over a parent': {
    fields: { type: 4, parentUuid: '00'.repeat(16) },
    placed: [{ block: 3, bits: someBits() }, { block: 5 }],
    backing: 9 * BLOCK + 700,
  },
};

export async function vhdSubjects(): Promise<Subject[]> {
  const driver = await loadDriver('vhd');
  return Object.entries(KINDS).map(([name, { fields, placed, backing }]): Subject => {
    const content = new SparseBytes(SIZE);
    const below = backing === undefined ? null : patternBytes(0, backing, 99);
    if (below !== null) content.write(below, 0);
    for (const { block, bits } of placed) {
      for (let sector = 0; sector < BLOCK / 512; sector++) {
        const at = block * BLOCK + sector * 512;
        if (at >= SIZE || (bits !== undefined && ((bits[sector >> 3] as number) & (0x80 >> (sector & 7))) === 0))
          continue;
        content.write(data(block).subarray(sector * 512, (sector + 1) * 512), at);
      }
    }
    const blocks = placed.map((each) => ({ ...each, data: data(each.block) }));
    const image = dynamicVhd({ size: SIZE, blockBytes: BLOCK, placed: blocks, ...fields });
    return {
      ...{ name: `vhd, ${name}`, driver, content, unitBytes: BLOCK, tableBytes: 1024 * BLOCK, judge },
      files: { file: SparseBytes.from(image), ...(below && { backing: SparseBytes.from(below) }) },
    };
  });
}

/** What `vhd-util check` looks at, as far as a write could spoil it. */
const judge: Judge = async (files, { wasKilled }) => {
  const file = fileOf(files, 'file');
  const read = (offset: number, length: number): Buffer => {
    const bytes = Buffer.alloc(length);
    file.read(bytes, offset);
    return bytes;
  };
  const faults: string[] = [];
  const first = read(0, 512);
  // tapdisk leaves it out, too, when it is killed
  if (!wasKilled && !read(file.size - 512, 512).equals(first)) faults.push('the footer at the end is not its copy');
  const header = read(512, 1024);
  const sum = header.reduce((total, byte, at) => total + (at >= 36 && at < 40 ? 0 : byte), 0);
  if (~sum >>> 0 !== header.readUInt32BE(36)) faults.push('the checksum of the header is wrong');
  const table = read(TABLE_AT, 4 * BLOCKS);
  const hasBatmap = read(TABLE_AT + 512, 8).toString('latin1') === 'tdbatmap';
  let end = TABLE_AT + 512 + (hasBatmap ? 1024 : 0);
  const starts = Array.from({ length: BLOCKS }, (_, block) => table.readUInt32BE(4 * block)).filter((n) => n !== NONE);
  for (const start of starts.map((sector) => sector * 512).sort((a, b) => a - b)) {
    if (start < end) faults.push(`the block at byte ${start} overlaps what is before it`);
    if ((start + 512) % 4096 !== 0) faults.push(`the data of the block at byte ${start} is not aligned`);
    end = start + 512 + BLOCK;
  }
  if (end > file.size - (wasKilled ? 0 : 512)) faults.push('a block reaches into the footer');
  return faults;
};
