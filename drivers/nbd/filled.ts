/**
 * Which bytes of a read have come. Each must come exactly once: a server that sends one part twice, and another not at all,
 * would leave bytes of an older request in the buffer.
 */

interface Part {
  start: number;
  end: number;
}

/** parts with gaps between them: servers send a few, in order */
const MOST_PARTS = 1024;

export class Filled {
  /** all before it have come */
  #end = 0;
  /** behind that, in order, with gaps between them */
  readonly #parts: Part[] = [];

  /** Notes bytes. @returns false if one of them has come before, or if the answer is in too many pieces */
  add(start: number, bytes: number): boolean {
    if (start < this.#end) return false;
    const end = start + bytes;
    const parts = this.#parts;
    if (parts.length === 0 && start === this.#end) {
      this.#end = end;
      return true;
    }
    const at = parts.findIndex((part) => part.end >= start);
    const next = at < 0 ? undefined : parts[at];
    if (next !== undefined && next.end > start && next.start < end) return false;
    if (next?.end === start) {
      const behind = parts[at + 1];
      if (behind !== undefined && behind.start < end) return false;
      next.end = end;
    } else if (next?.start === end) next.start = start;
    else if (parts.length >= MOST_PARTS) return false;
    else parts.splice(at < 0 ? parts.length : at, 0, { start, end });
    this.#close();
    return true;
  }

  /** Whether the first so many bytes have come, and no others. */
  isWhole(bytes: number): boolean {
    return this.#end === bytes && this.#parts.length === 0;
  }

  /** Parts without a gap before them are no parts any more. */
  #close(): void {
    for (let first = this.#parts[0]; first !== undefined && first.start === this.#end; first = this.#parts[0]) {
      this.#end = first.end;
      this.#parts.shift();
    }
  }
}
