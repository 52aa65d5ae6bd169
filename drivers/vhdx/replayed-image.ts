/**
 * The image as a replay of its log would leave it. The file is not changed: what the log replaces is in memory.
 *
 *      read ──► ranges of the log │ the file │ zeros after its end
 */
import type { Disk } from '../disk.js';
import type { Range } from '../map/disk-map.js';
import { lastAtOrBefore } from '../segments/joined-disk.js';
import type { Replay } from './log.js';
import type { LogChange } from './log-entry.js';

/** A part of the image. */
export interface ImagePart extends Range {
  /** the log replaces it, so the file may have other bytes */
  readonly isReplaced: boolean;
}

export class ReplayedImage {
  /** after the replay; at least that of the file */
  readonly size: number;
  readonly #file: Disk;
  /** in order, without overlaps */
  readonly #replaced: readonly LogChange[];

  /** @param replay null: the log is empty */
  constructor(file: Disk, replay: Replay | null) {
    this.#file = file;
    this.#replaced = lastOnes(replay?.changes ?? []);
    this.size = Math.max(file.size, replay?.imageBytes ?? 0, end(this.#replaced.at(-1)));
  }

  /** Reads a range; what is after the end of the image is zeros. The caller has a bound for `length`. */
  async readAt(offset: number, length: number): Promise<Buffer> {
    const buffer = Buffer.alloc(length);
    await this.read(buffer, offset);
    return buffer;
  }

  /** Fills the buffer; what is after the end of the image is zeros. */
  async read(buffer: Uint8Array, offset: number): Promise<void> {
    const read = offset < this.#file.size ? await this.#file.read(buffer, offset) : 0;
    if (read < buffer.length) buffer.fill(0, read);
    for (const { offset: from, length, bytes } of this.#replacedIn(offset, buffer.length)) {
      const [start, to] = [Math.max(from, offset), Math.min(from + length, offset + buffer.length)];
      if (bytes === null) buffer.fill(0, start - offset, to - offset);
      else buffer.set(bytes.subarray(start - from, to - from), start - offset);
    }
  }

  /** The parts of a range, in order. */
  *partsOf(offset: number, length: number): Generator<ImagePart> {
    const to = offset + length;
    let at = offset;
    for (const change of this.#replacedIn(offset, length)) {
      const start = Math.max(at, change.offset);
      if (start > at) yield { offset: at, length: start - at, isReplaced: false };
      at = Math.min(to, end(change));
      yield { offset: start, length: at - start, isReplaced: true };
    }
    if (at < to) yield { offset: at, length: to - at, isReplaced: false };
  }

  *#replacedIn(offset: number, length: number): Generator<LogChange> {
    for (let i = lastAtOrBefore(this.#replaced, offset); i < this.#replaced.length; i++) {
      const change = this.#replaced[i] as LogChange;
      if (change.offset >= offset + length) return;
      if (end(change) > offset) yield change;
    }
  }
}

function end(change: LogChange | undefined): number {
  return change === undefined ? 0 : change.offset + change.length;
}

/**
 * What is left of changes that were made one after the other. It takes the last one first, and jumps over what has a later
 * change already, so the work does not grow with the overlaps.
 */
function lastOnes(changes: readonly LogChange[]): LogChange[] {
  const bounds = boundsOf(changes);
  /** of the piece from each bound to the next one: its last change */
  const owners = new Int32Array(bounds.length).fill(-1);
  /** the first piece, from this one on, that may have no change yet */
  const free = new Int32Array(bounds.length).map((_, index) => index);
  const freeFrom = (index: number): number => {
    let found = index;
    while (free[found] !== found) {
      const next = free[found] as number;
      // halves the way for the next one that comes
      free[found] = free[next] as number;
      found = next;
    }
    return found;
  };
  for (let i = changes.length - 1; i >= 0; i--) {
    const change = changes[i] as LogChange;
    const to = indexOf(bounds, end(change));
    for (let piece = freeFrom(indexOf(bounds, change.offset)); piece < to; piece = freeFrom(piece)) {
      owners[piece] = i;
      free[piece] = piece + 1;
    }
  }
  return piecesOf(changes, bounds, owners);
}

/** Where changes begin and end: each place once, in order. */
function boundsOf(changes: readonly LogChange[]): Float64Array {
  const all = new Float64Array(2 * changes.length);
  for (const [i, change] of changes.entries()) {
    all[2 * i] = change.offset;
    all[2 * i + 1] = end(change);
  }
  all.sort();
  return all.filter((bound, i) => i === 0 || bound !== all[i - 1]);
}

/** The index of a number that is there. */
function indexOf(sorted: Float64Array, value: number): number {
  let [low, high] = [0, sorted.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle] as number) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Pages are never cut, because all changes are of whole pages. */
function piecesOf(changes: readonly LogChange[], bounds: Float64Array, owners: Int32Array): LogChange[] {
  const pieces: LogChange[] = [];
  let zerosFrom: number | null = null;
  // at the last bound nothing begins, so a run of zeros always ends
  for (const [index, offset] of bounds.entries()) {
    const bytes = changes[owners[index] as number]?.bytes;
    if (bytes === null) {
      zerosFrom ??= offset;
      continue;
    }
    if (zerosFrom !== null) pieces.push({ offset: zerosFrom, length: offset - zerosFrom, bytes: null });
    zerosFrom = null;
    if (bytes !== undefined) pieces.push({ offset, length: bytes.length, bytes });
  }
  return pieces;
}
