/**
 * Checks a VHD: what `vhd-util check` looks at, as far as a disk depends on it. It shares the reading of the headers with the
 * driver, and no code with its table and its writer, so that it can judge them.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Disk } from '../disk.js';
import type { CheckResult, ExamineOptions } from '../examining/examiner.js';
import { Findings } from '../examining/findings.js';
import { readUpTo } from '../formats/read.js';
import { type DynamicHeader, NONE, type Reserved, readDynamicHeader } from './dynamic-header.js';
import { FOOTER_BYTES, type Footer, readFooter } from './footer.js';

const SECTOR_BYTES = 512;
const CHUNK_BYTES = 1 << 20;
/** features: the bit that every writer sets */
const FEATURES_AT = 8;
const RESERVED_FEATURE = 2;

/** @throws FusetapError if its headers are not valid, or the image cannot be read; the signal's reason */
export async function checkVhd(image: Disk, options: ExamineOptions = {}): Promise<CheckResult> {
  const footer = await readFooter(image);
  const found = new Findings();
  checkFooter(footer, found);
  if (footer.type === 'fixed') return resultOf(footer, found, { allocated: 0, fragmented: 0, end: image.size });
  const copy = await readUpTo(image, 0, FOOTER_BYTES);
  if (!copy.equals(footer.bytes)) found.add('the copy of the footer at byte 0 is not the footer');
  const header = await readDynamicHeader(image, footer);
  const blocks = await checkTable(image, header, found, options);
  return resultOf(footer, found, blocks, header);
}

function checkFooter({ bytes, uuid }: Footer, found: Findings): void {
  if ((bytes.readUInt32BE(FEATURES_AT) & RESERVED_FEATURE) === 0)
    found.add('its features lack the bit that is always set');
  if (/^0+$/.test(uuid)) found.add('it has no unique id, so images over it look as if they were over a raw image');
}

interface Blocks {
  readonly allocated: number;
  readonly fragmented: number;
  /** behind all that is in the image */
  readonly end: number;
}

async function checkTable(
  image: Disk,
  header: DynamicHeader,
  found: Findings,
  { signal, progress }: ExamineOptions,
): Promise<Blocks> {
  const { tableAt, blocks, blockBytes, bitmapBytes } = header;
  const starts: { readonly block: number; readonly start: number }[] = [];
  let fragmented = 0;
  for (let first = 0; first < blocks; first += CHUNK_BYTES / 4) {
    await nextTurn();
    signal?.throwIfAborted();
    progress?.(first, blocks);
    const count = Math.min(CHUNK_BYTES / 4, blocks - first);
    const bytes = await readUpTo(image, tableAt + 4 * first, 4 * count);
    for (let i = 0; i < bytes.length / 4; i++) {
      const entry = bytes.readUInt32BE(4 * i);
      if (entry === NONE) continue;
      const before = starts.at(-1);
      const follows = before?.block === first + i - 1 && before.start < entry * SECTOR_BYTES;
      if (before !== undefined && !follows) fragmented += 1;
      starts.push({ block: first + i, start: entry * SECTOR_BYTES });
    }
  }
  const limit = image.size;
  for (const { block, start } of starts) {
    if (start + bitmapBytes > limit)
      found.add(`block ${block} at byte ${start} is outside of the image of ${limit} bytes`);
  }
  const end = findOverlaps(
    [
      ...header.reserved.map((range) => ({ ...range, isBlock: false })),
      ...starts.map(({ block, start }): Range => {
        return { what: `block ${block}`, start, end: start + bitmapBytes + blockBytes, isBlock: true };
      }),
    ],
    found,
  );
  return { allocated: starts.length, fragmented, end };
}

interface Range extends Reserved {
  readonly isBlock: boolean;
}

/** Finds blocks that overlap one another, or what is no block. @returns behind the last range */
function findOverlaps(ranges: Range[], found: Findings): number {
  let last: Range | undefined;
  for (const range of ranges.sort((a, b) => a.start - b.start)) {
    const { what, start } = range;
    if (last !== undefined && start < last.end && (range.isBlock || last.isBlock))
      found.add(`${what} at byte ${start} overlaps ${last.what}, which ends at byte ${last.end}`);
    if (last === undefined || range.end > last.end) last = range;
  }
  return last?.end ?? 0;
}

function resultOf(footer: Footer, found: Findings, blocks: Blocks, header?: DynamicHeader): CheckResult {
  return {
    corruptions: found.lines,
    corruptionCount: found.count,
    leaks: { clusters: 0, bytes: 0, ranges: [] },
    isDirty: !footer.isAtEnd,
    isMarkedCorrupt: false,
    clusters: { total: header?.blocks ?? 0, allocated: blocks.allocated, fragmented: blocks.fragmented, compressed: 0 },
    beyondEnd: 0,
    imageEnd: blocks.end,
  };
}
