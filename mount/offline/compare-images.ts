/**
 * Where the bytes of two disks differ. Ranges that both maps call zeros, and ranges that both disks have at one place of one
 * file (a common backing file), are not read.
 */
import type { Change } from '../../drivers/driver.js';
import type { FileExtent } from '../../drivers/map/map-extents.js';
import type { MappedImage } from './mapped-image.js';

/** what differs is told in blocks of this size, or in parts of them where an extent ends */
const BLOCK_BYTES = 4096;
const CHUNK_BYTES = 1 << 20;

/**
 * The ranges in which the second disk differs from the first, in order: `zeros` if the second one is zeros there. The shorter
 * disk counts as followed by zeros.
 */
export async function* compareImages(first: MappedImage, second: MappedImage): AsyncGenerator<Change, void> {
  let [offset, length] = [0, 0];
  let kind: Change['kind'] = 'data';
  for await (const found of differences(first, second)) {
    if (length > 0 && found.kind === kind && found.offset === offset + length) {
      length += found.length;
      continue;
    }
    if (length > 0) yield { offset, length, kind };
    ({ offset, length, kind } = found);
  }
  if (length > 0) yield { offset, length, kind };
}

async function* differences(first: MappedImage, second: MappedImage): AsyncGenerator<Change, void> {
  const [one, other] = [new Cursor(first), new Cursor(second)];
  const buffers = [Buffer.alloc(CHUNK_BYTES), Buffer.alloc(CHUNK_BYTES)] as const;
  const size = Math.max(first.sizeBytes, second.sizeBytes);
  for (let at = 0; at < size; ) {
    const [left, right] = [await one.at(at), await other.at(at)];
    const end = Math.min(size, left.end, right.end);
    const isSame = (left.zero && right.zero) || (left.place !== null && left.place === right.place);
    for (let from = at; !isSame && from < end; from += CHUNK_BYTES) {
      const length = Math.min(CHUNK_BYTES, end - from);
      const [a, b] = buffers.map((buffer) => buffer.subarray(0, length)) as [Buffer, Buffer];
      await Promise.all([fill(first, left, a, from), fill(second, right, b, from)]);
      yield* blocksThatDiffer(a, b, from);
    }
    at = end;
  }
}

function fill(image: MappedImage, { zero }: Known, buffer: Buffer, offset: number): Promise<void> {
  if (!zero) return image.read(buffer, offset);
  buffer.fill(0);
  return Promise.resolve();
}

function* blocksThatDiffer(a: Buffer, b: Buffer, offset: number): Generator<Change, void> {
  if (a.equals(b)) return;
  for (let from = 0; from < a.length; ) {
    const to = Math.min(a.length, from + BLOCK_BYTES - ((offset + from) % BLOCK_BYTES));
    const block = b.subarray(from, to);
    if (!a.subarray(from, to).equals(block)) {
      const kind = block.every((byte) => byte === 0) ? 'zeros' : 'data';
      yield { offset: offset + from, length: to - from, kind };
    }
    from = to;
  }
}

/** What the map of a disk tells of a range that begins at some byte. */
interface Known {
  readonly zero: boolean;
  readonly place: string | null;
  readonly end: number;
}

/** Goes through the map of a disk, forward. */
class Cursor {
  readonly #image: MappedImage;
  #extents: readonly FileExtent[] = [];
  #index = 0;

  constructor(image: MappedImage) {
    this.#image = image;
  }

  async at(offset: number): Promise<Known> {
    if (offset >= this.#image.sizeBytes) return { zero: true, place: null, end: Number.POSITIVE_INFINITY };
    for (;;) {
      const extent = this.#extents[this.#index];
      if (extent === undefined) {
        this.#extents = (await this.#image.tell(offset)).extents;
        this.#index = 0;
      } else if (offset < extent.start + extent.length) {
        return { zero: extent.zero, place: this.#image.placeOf(extent), end: extent.start + extent.length };
      } else this.#index++;
    }
  }
}
