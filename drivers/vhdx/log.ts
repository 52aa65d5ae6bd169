/**
 * Reads the log of a VHDX, and finds what a replay would change. Nothing is written.
 *
 * The entries that count are the active sequence: entries one after the other with consecutive sequence numbers, of which the
 * last one names a tail that is one of them. If there are several, the one with the highest number counts. It is replayed from
 * its tail on: what is before the tail is in the image already.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Disk } from '../disk.js';
import { broken, unsupported } from '../formats/faults.js';
import { readUpTo } from '../formats/read.js';
import type { LogPlace } from './header.js';
import { type LogChange, type LogEntry, LogRing, SECTOR_BYTES } from './log-entry.js';

/** QEMU and Hyper-V make logs of 1 MiB. A replay needs so much memory */
export const MOST_LOG_BYTES = 16 << 20;
const CHUNK_BYTES = 1 << 20;

/** What a replay would do. */
export interface Replay {
  readonly entries: number;
  /** in their order */
  readonly changes: readonly LogChange[];
  /** the least size of the image afterwards */
  readonly imageBytes: number;
}

/**
 * @returns null if the log is empty
 * @throws FusetapError FAILED if it is not empty and has no active sequence; UNSUPPORTED if it is too long
 */
export async function readLog(image: Disk, { guid, offset, length }: LogPlace): Promise<Replay | null> {
  if (guid === null) return null;
  if (length > MOST_LOG_BYTES) {
    throw unsupported(
      `its log of ${length} bytes must be replayed: at most ${MOST_LOG_BYTES} bytes are`,
      'replay it, in a copy of the image: qemu-img check -r all IMAGE',
    );
  }
  if (length === 0 || offset + length > image.size) {
    throw broken('VHDX', `its log of ${length} bytes at byte ${offset} is not in the file of ${image.size} bytes`);
  }
  const ring = new LogRing(await readRing(image, offset, length));
  const active = activeSequence(await validEntries(ring, guid), ring.sectors);
  if (active === null) throw broken('VHDX', 'its log is not empty, and has no valid sequence of entries');
  const changes = active.flatMap((entry) => [...ring.changesOf(entry)]);
  return { entries: active.length, changes, imageBytes: sizeAfter(active, image.size) };
}

async function readRing(image: Disk, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += CHUNK_BYTES) {
    (await readUpTo(image, offset + at, CHUNK_BYTES)).copy(bytes, at);
  }
  return bytes;
}

/** In the order of their places. */
async function validEntries(ring: LogRing, guid: string): Promise<LogEntry[]> {
  const entries: LogEntry[] = [];
  const turn = CHUNK_BYTES / SECTOR_BYTES;
  for (let first = 0; first < ring.sectors; first++) {
    // checksums take a millisecond or more for each MiB
    if (first % turn === 0) await nextTurn();
    const entry = ring.entryAt(first, guid);
    if (entry !== null) entries.push(entry);
  }
  return entries;
}

/** From its tail to its head; null if there is none. */
function activeSequence(entries: readonly LogEntry[], sectors: number): LogEntry[] | null {
  const byPlace = new Map(entries.map((entry) => [entry.first, entry]));
  const after = ({ first, sectors: own, sequence }: LogEntry): LogEntry | undefined => {
    const entry = byPlace.get((first + own) % sectors);
    return entry?.sequence === sequence + 1n ? entry : undefined;
  };
  const followers = new Set(entries.map(after));
  let active: LogEntry[] | null = null;
  for (const start of entries.filter((entry) => !followers.has(entry))) {
    const sequence = [start];
    let head = start;
    for (let entry = after(start); entry !== undefined; entry = after(entry)) {
      sequence.push(entry);
      head = entry;
    }
    const tail = sequence.findIndex(({ first }) => first === head.tail);
    const isHigher = head.sequence > (active?.at(-1)?.sequence ?? 0n);
    if (tail >= 0 && isHigher) active = sequence.slice(tail);
  }
  return active;
}

/** @throws FusetapError FAILED if the file was cut off */
function sizeAfter(active: readonly LogEntry[], imageBytes: number): number {
  let size = BigInt(imageBytes);
  for (const { flushedBytes, lastBytes } of active) {
    if (flushedBytes > size) {
      throw broken('VHDX', `it is cut off: its log was written when the file had ${flushedBytes} bytes, not ${size}`);
    }
    if (lastBytes > size) size = lastBytes;
  }
  if (size <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(size);
  throw broken('VHDX', `a replay of its log would make the file ${size} bytes large`);
}
