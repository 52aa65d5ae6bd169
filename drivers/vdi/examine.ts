/** Examines VDIs: what the header says, and whether the map is sound. The check shares no code with the driver's map. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Disk } from '../disk.js';
import type { CheckResult, ExamineOptions, Examiner } from '../examining/examiner.js';
import { Findings } from '../examining/findings.js';
import { readUpTo } from '../formats/read.js';
import { repairCount } from './block-map.js';
import { type Header, readHeader } from './header.js';

/** an entry from here on names no place */
const FIRST_NONE = 0xffff_fffe;
const CHUNK_BYTES = 1 << 20;

const vdi = {
  async describe(image) {
    const { size, type, blockBytes, blocks, count } = await readHeader(image);
    return { size, facts: { type, blockBytes, blocks, blocksCounted: count }, names: [] };
  },
  checker: {
    check: checkVdi,
    /** Nothing leaks in a VDI but what its count of blocks says too much. */
    repairLeaks: repairCount,
  },
} satisfies Examiner;

export default vdi;

async function checkVdi(image: Disk, options: ExamineOptions = {}): Promise<CheckResult> {
  const header = await readHeader(image);
  const { blocks, blockBytes, dataStart, count } = header;
  const places = await readPlaces(image, header, options);
  const found = new Findings();
  let [end, fragmented] = [0, 0];
  const users = new Map<number, number>();
  let before = -2;
  for (const [block, place] of places) {
    const other = users.get(place);
    if (other !== undefined) found.add(`blocks ${other} and ${block} are both at place ${place}`);
    users.set(place, block);
    if (place !== before + 1) fragmented += 1;
    before = place;
    end = Math.max(end, place + 1);
    const last = dataStart + place * blockBytes + Math.min(blockBytes, header.size - block * blockBytes);
    if (last > image.size) found.add(`block ${block} ends at byte ${last}, and the image has ${image.size} bytes`);
  }
  // other programs put their next block there
  if (count < end) found.add(`its header counts ${count} blocks, and the last one is at place ${end - 1}`);
  return {
    ...{
      corruptions: found.lines,
      corruptionCount: found.count,
      isDirty: count !== end,
      isMarkedCorrupt: false,
      beyondEnd: 0,
    },
    leaks: { clusters: 0, bytes: 0, ranges: [] },
    clusters: { total: blocks, allocated: places.length, fragmented: Math.max(0, fragmented - 1), compressed: 0 },
    imageEnd: dataStart + end * blockBytes,
  };
}

/** The blocks that have a place, with their places. */
async function readPlaces(
  image: Disk,
  { mapStart, blocks }: Header,
  { signal, progress }: ExamineOptions,
): Promise<[block: number, place: number][]> {
  const places: [number, number][] = [];
  for (let first = 0; first < blocks; first += CHUNK_BYTES / 4) {
    await nextTurn();
    signal?.throwIfAborted();
    progress?.(first, blocks);
    const bytes = await readUpTo(image, mapStart + 4 * first, Math.min(CHUNK_BYTES, 4 * (blocks - first)));
    for (let i = 0; i < Math.floor(bytes.length / 4); i++) {
      const place = bytes.readUInt32LE(4 * i);
      if (place < FIRST_NONE) places.push([first + i, place]);
    }
  }
  return places;
}
