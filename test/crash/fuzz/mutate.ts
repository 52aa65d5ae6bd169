/** Changes to an image that a hostile or damaged one may have: in its headers and tables. */
import type { Random } from '../../../scripts/lib/torture/second-faults/random.js';
import type { SparseBytes } from '../sparse-bytes.js';

/** A part of an image that is not data: a header, or a table. */
export interface Region {
  readonly offset: number;
  readonly length: number;
  /** bytes of its numbers */
  readonly word: 1 | 2 | 4 | 8;
  readonly order: 'big' | 'little';
}

/** Changes some places of an image. @returns the changed copy, and what was done */
export function mutate(
  image: SparseBytes,
  regions: readonly Region[],
  random: Random,
): { readonly image: SparseBytes; readonly text: string } {
  const changed = image.copy();
  const texts: string[] = [];
  for (let count = random.pick([1, 1, 1, 2, 3, 6]); count > 0; count--) {
    const region = random.pick(regions);
    texts.push(mutateOnce(changed, region, { regions, random }));
  }
  if (random.isOneIn(12)) texts.push(cutOrGrow(changed, random));
  return { image: changed, text: texts.join(', ') };
}

interface Means {
  readonly regions: readonly Region[];
  readonly random: Random;
}

function mutateOnce(image: SparseBytes, region: Region, { regions, random }: Means): string {
  const words = Math.floor(region.length / region.word);
  const at = region.offset + random.below(Math.max(1, words)) * region.word;
  if (at + 8 > image.size) return 'nothing';
  switch (random.below(8)) {
    case 0:
      return flipBit(image, region.offset + random.below(region.length), random);
    case 1:
      return putBytes(image, region.offset + random.below(region.length), Buffer.of(random.below(256)));
    case 2: {
      // an entry that is also somewhere else
      const from = region.offset + random.below(Math.max(1, words)) * region.word;
      return putBytes(image, at, readBytes(image, from, region.word));
    }
    case 3: {
      const other = random.pick(regions);
      return putWord(image, at, region, BigInt(other.offset) + (random.isOneIn(3) ? 1n << 63n : 0n));
    }
    case 4: {
      const length = Math.min(random.pick([8, 64, 512]), image.size - at);
      return putBytes(image, at, random.isOneIn(2) ? Buffer.alloc(length) : Buffer.alloc(length, 0xff));
    }
    case 5: {
      const old = wordAt(image, at, region);
      return putWord(image, at, region, old + BigInt(random.pick([-1, 1, -512, 512, 65_536, -65_536])));
    }
    default:
      return putWord(image, at, region, oddNumber(image, random));
  }
}

/** Numbers at which arithmetic goes wrong. */
function oddNumber(image: SparseBytes, random: Random): bigint {
  const power = 1n << BigInt(random.below(64));
  const near = BigInt(random.pick([-1, 0, 1]));
  const size = BigInt(image.size);
  return random.pick([
    0n,
    1n,
    -1n,
    power + near,
    size + near,
    size - (size % 512n),
    BigInt(random.below(image.size)),
    1n << 63n,
  ]);
}

function flipBit(image: SparseBytes, at: number, random: Random): string {
  if (at >= image.size) return 'nothing';
  const [old = 0] = readBytes(image, at, 1);
  return putBytes(image, at, Buffer.of(old ^ (1 << random.below(8))));
}

function readBytes(image: SparseBytes, at: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  image.read(bytes, at);
  return bytes;
}

function putBytes(image: SparseBytes, at: number, bytes: Buffer): string {
  const length = Math.min(bytes.length, image.size - at);
  if (length <= 0) return 'nothing';
  image.write(bytes.subarray(0, length), at);
  return `byte ${at}: ${bytes.subarray(0, 8).toString('hex')}${length > 8 ? ` × ${length / 8}` : ''}`;
}

function wordAt(image: SparseBytes, at: number, { word, order }: Region): bigint {
  const bytes = readBytes(image, at, word);
  return BigInt(`0x${(order === 'little' ? bytes.reverse() : bytes).toString('hex')}`);
}

function putWord(image: SparseBytes, at: number, { word, order }: Region, value: bigint): string {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt.asUintN(64, value));
  const own = Buffer.from(bytes.subarray(8 - word));
  return putBytes(image, at, order === 'little' ? own.reverse() : own);
}

function cutOrGrow(image: SparseBytes, random: Random): string {
  const size = random.isOneIn(4) ? image.size + random.below(1 << 20) : 1 + random.below(image.size);
  image.resize(size);
  return `size ${size}`;
}
