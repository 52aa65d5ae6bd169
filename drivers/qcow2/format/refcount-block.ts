/**
 * A refcount block: refcounts of 1 to 64 bits. Those of less than 8 bits begin at the least significant bits of a byte;
 * larger ones are big endian.
 */
export class RefcountBlock {
  readonly bytes: Buffer;
  /** its first byte in the image */
  readonly place: number;
  /** of one refcount */
  readonly #bits: number;

  /** @param order a refcount has 2 to the power of this bits */
  constructor(bytes: Buffer, place: number, order: number) {
    this.bytes = bytes;
    this.place = place;
    this.#bits = 2 ** order;
  }

  get length(): number {
    return (this.bytes.length * 8) / this.#bits;
  }

  /** @returns the refcount; above Number.MAX_SAFE_INTEGER it is not exact */
  get(index: number): number {
    const { bytes } = this;
    switch (this.#bits) {
      case 64:
        return bytes.readUInt32BE(index * 8) * 2 ** 32 + bytes.readUInt32BE(index * 8 + 4);
      case 32:
        return bytes.readUInt32BE(index * 4);
      case 16:
        return bytes.readUInt16BE(index * 2);
      case 8:
        return bytes[index] as number;
      default: {
        const { at, shift } = this.#bitsOf(index);
        return ((bytes[at] as number) >> shift) & (2 ** this.#bits - 1);
      }
    }
  }

  /** Sets refcounts that follow one another. @returns the bytes that have changed */
  fill(index: number, count: number, value: number): { from: number; to: number } {
    for (let each = index; each < index + count; each++) this.#set(each, value);
    const from = Math.floor((index * this.#bits) / 8);
    return { from, to: Math.ceil(((index + count) * this.#bits) / 8) };
  }

  #set(index: number, value: number): void {
    const { bytes } = this;
    switch (this.#bits) {
      case 64:
        bytes.writeUInt32BE(Math.floor(value / 2 ** 32), index * 8);
        bytes.writeUInt32BE(value % 2 ** 32, index * 8 + 4);
        break;
      case 32:
        bytes.writeUInt32BE(value, index * 4);
        break;
      case 16:
        bytes.writeUInt16BE(value, index * 2);
        break;
      case 8:
        bytes[index] = value;
        break;
      default: {
        const { at, shift } = this.#bitsOf(index);
        const mask = (2 ** this.#bits - 1) << shift;
        bytes[at] = ((bytes[at] as number) & ~mask) | (value << shift);
      }
    }
  }

  #bitsOf(index: number): { at: number; shift: number } {
    const bit = index * this.#bits;
    return { at: bit >> 3, shift: bit & 7 };
  }

  /** The last refcount that is not 0; -1 if all are 0. */
  lastUsed(): number {
    let at = this.bytes.length - 1;
    while (at >= 0 && this.bytes[at] === 0) at--;
    if (at < 0) return -1;
    let index = Math.ceil(((at + 1) * 8) / this.#bits) - 1;
    while (this.get(index) === 0) index--;
    return index;
  }
}
