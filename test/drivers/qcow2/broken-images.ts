/** Breaks qcow2 images: changes fields of their tables. Knows the format by itself, as a judge must. */

const PLACE = 0x00ff_ffff_ffff_fe00n;
const COPIED = 1n << 63n;

/** Where the tables of an image are. All places are bytes. */
export interface Anatomy {
  readonly clusterBytes: number;
  readonly l1: number;
  readonly l1Entries: number;
  /** each L2 table that the L1 table names */
  readonly tables: readonly number[];
  /** entries of these tables that are not 0 */
  readonly entries: readonly number[];
  readonly refcountTable: number;
  readonly blocks: readonly number[];
  readonly snapshots: number;
  readonly snapshotCount: number;
}

export function anatomyOf(image: Buffer): Anatomy {
  const offsetAt = (at: number): number => Number(image.readBigUInt64BE(at));
  const clusterBytes = 2 ** image.readUInt32BE(20);
  const [l1, l1Entries, refcountTable] = [offsetAt(40), image.readUInt32BE(36), offsetAt(48)];
  const named = (table: number, count: number): number[] =>
    Array.from({ length: count }, (_, i) => Number(wordAt(image, table + i * 8) & PLACE)).filter(
      (place) => place !== 0,
    );
  const tables = named(l1, l1Entries);
  const entries = tables.flatMap((table) =>
    Array.from({ length: clusterBytes / 8 }, (_, i) => table + i * 8).filter((at) => wordAt(image, at) !== 0n),
  );
  const blocks = named(refcountTable, clusterBytes / 8);
  const [snapshots, snapshotCount] = [offsetAt(64), image.readUInt32BE(60)];
  return { ...{ clusterBytes, l1, l1Entries, tables, entries }, refcountTable, blocks, snapshots, snapshotCount };
}

function wordAt(image: Buffer, at: number): bigint {
  return at + 8 <= image.length ? image.readBigUInt64BE(at) : 0n;
}

/** Whole numbers from 0 to below a limit. */
export type Random = (below: number) => number;

export type Break = (image: Buffer, anatomy: Anatomy, random: Random) => void;

function pick<Item>(items: readonly Item[], random: Random): Item | undefined {
  return items[random(Math.max(1, items.length))];
}

function anyEntry(image: Buffer, { clusterBytes }: Anatomy, random: Random): bigint {
  const clusters = Math.ceil(image.length / clusterBytes);
  const cluster = BigInt(random(clusters) * clusterBytes);
  const values = [
    cluster,
    cluster | COPIED,
    BigInt(random(image.length)),
    BigInt(random(2 ** 30)) * BigInt(clusterBytes),
    BigInt(random(2 ** 30)) << 30n,
    0n,
    BigInt(random(image.length)) | (1n << 62n),
  ];
  return values[random(values.length)] as bigint;
}

/** Ways to break an image, each in one place. */
export const BREAKS: Readonly<Record<string, Break>> = {
  'an L2 entry': (image, anatomy, random) => {
    const at = pick(anatomy.entries, random);
    if (at !== undefined) image.writeBigUInt64BE(anyEntry(image, anatomy, random), at);
  },
  'two equal L2 entries': (image, { entries }, random) => {
    const [from, to] = [pick(entries, random), pick(entries, random)];
    if (from !== undefined && to !== undefined) image.copy(image, to, from, from + 8);
  },
  'an L1 entry': (image, anatomy, random) => {
    image.writeBigUInt64BE(anyEntry(image, anatomy, random), anatomy.l1 + 8 * random(anatomy.l1Entries));
  },
  'the refcount table': (image, anatomy, random) => {
    image.writeBigUInt64BE(anyEntry(image, anatomy, random), anatomy.refcountTable + 8 * random(3));
  },
  'a refcount': (image, { blocks, clusterBytes }, random) => {
    const block = pick(blocks, random);
    const clusters = Math.ceil(image.length / clusterBytes);
    if (block !== undefined) image[block + random(Math.min(clusterBytes, 2 * clusters))] = random(256);
  },
  'a bit of a table': (image, { entries, tables, blocks, l1, refcountTable }, random) => {
    const place = pick([...entries, ...tables, ...blocks, l1, refcountTable], random) as number;
    const at = place + random(8);
    image[at] = (image[at] as number) ^ (1 << random(8));
  },
  'a bit of the snapshot table': (image, { snapshots, snapshotCount }, random) => {
    if (snapshotCount === 0) return;
    const at = snapshots + random(56);
    if (at < image.length) image[at] = (image[at] as number) ^ (1 << random(8));
  },
  'a bit of the header': (image, _, random) => {
    const at = random(112);
    image[at] = (image[at] as number) ^ (1 << random(8));
  },
};
