/** VDI images to put under test, with small blocks; and their judge, which shares no code with the driver. */
import { loadDriver } from '../../../drivers/registry.js';
import { patternBytes } from '../../conformance/pattern.js';
import { vdiHead } from '../../drivers/images/vdi.js';
import { SparseBytes } from '../sparse-bytes.js';
import type { Judge, Subject } from '../subject.js';
import { fileOf } from '../tape.js';

const BLOCK = 4096;
const SIZE = 40 * BLOCK + 700;
const BLOCKS = 41;
const NONE = 0xffff_ffff;

const KINDS = {
  empty: [],
  'with blocks in any order': [
    [3, 2],
    [0, 0],
    [40, 1],
    [17, 3],
  ],
  // the last program was killed
  'with a count that is too large': [
    [5, 0],
    [6, 1],
  ],
} satisfies Record<string, readonly (readonly [block: number, place: number])[]>;

export async function vdiSubjects(): Promise<Subject[]> {
  const driver = await loadDriver('vdi');
  return Object.entries(KINDS).map(([name, placed]): Subject => {
    const map = Array.from({ length: BLOCKS }, () => NONE);
    const content = new SparseBytes(SIZE);
    const extra = name === 'with a count that is too large' ? 2 : 0;
    for (const [block, place] of placed) map[block] = place;
    const { head, dataStart } = vdiHead({ size: SIZE, blockBytes: BLOCK, type: 1, map });
    head.writeUInt32LE(placed.length + extra, 388);
    const image = Buffer.alloc(dataStart + (placed.length + extra) * BLOCK);
    head.copy(image);
    for (const [block, place] of placed) {
      const bytes = patternBytes(0, Math.min(BLOCK, SIZE - block * BLOCK), block);
      image.set(bytes, dataStart + place * BLOCK);
      content.write(bytes, block * BLOCK);
    }
    // what a killed server has written and nothing refers to
    image.fill(0xee, dataStart + placed.length * BLOCK);
    const file = SparseBytes.from(image);
    return { name: `vdi, ${name}`, driver, files: { file }, content, unitBytes: BLOCK, tableBytes: 512 * 1024, judge };
  });
}

const judge: Judge = async (files, { wasKilled }) => {
  const file = fileOf(files, 'file');
  const head = readOf(file, 0, 512);
  const [mapStart, dataStart, count] = [head.readUInt32LE(340), head.readUInt32LE(344), head.readUInt32LE(388)];
  const map = readOf(file, mapStart, 4 * BLOCKS);
  const places = Array.from({ length: BLOCKS }, (_, block) => map.readUInt32LE(4 * block)).filter((n) => n < NONE - 1);
  const faults: string[] = [];
  if (new Set(places).size < places.length) faults.push('two blocks are at one place');
  const end = Math.max(0, ...places.map((place) => place + 1));
  // other programs put their next block there
  if (count < end) faults.push(`${count} blocks are counted, and the last place is ${end - 1}`);
  if (count !== end && !wasKilled)
    faults.push(`${count} blocks are counted, and the last place is ${end - 1}, after a clean end`);
  if (places.length > 0 && dataStart + (end - 1) * BLOCK >= file.size) faults.push('a block is outside of the image');
  return faults;
};

function readOf(file: SparseBytes, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  file.read(bytes, offset);
  return bytes;
}
