/** Examines qcow2 images: what the header says, snapshots, bitmaps. The check and the repair of leaks are in their own files. */
import type { Disk } from '../disk.js';
import { FusetapError } from '../errors.js';
import type { Description, Examiner, Fact, NamedFile } from '../examining/examiner.js';
import { checkImage } from './check.js';
import { RegionReader } from './checking/region-reader.js';
import { KNOWN_FEATURES } from './format/features.js';
import { AUTOCLEAR, COMPATIBLE, type Header, isDirty, isMarkedCorrupt, readHeader } from './format/header.js';
import { visitSnapshots } from './format/snapshots.js';
import { repairLeaks } from './repair.js';

type Row = Readonly<Record<string, Fact>>;

const qcow2 = {
  async describe(image) {
    const header = await readHeader(image);
    const faults: string[] = [];
    const snapshots = await collect(snapshotRows(image, header), faults);
    const bitmaps = await collect(bitmapRows(image, header), faults);
    return { size: header.size, facts: { ...factsOf(header), snapshots, bitmaps, faults }, names: namesOf(header) };
  },
  checker: { check: checkImage, repairLeaks },
} satisfies Examiner;

export default qcow2;

/** All rows, or those before a fault of the image. */
async function collect(rows: AsyncIterable<Row>, faults: string[]): Promise<Row[]> {
  const all: Row[] = [];
  try {
    for await (const row of rows) all.push(row);
  } catch (error) {
    if (!(error instanceof FusetapError)) throw error;
    faults.push(error.message);
  }
  return all;
}

function factsOf(header: Header): Description['facts'] {
  const { version, clusterBytes, refcountOrder, compression, hasExtendedL2 } = header;
  const { incompatible, compatible, autoclear } = header;
  return {
    ...{ version, clusterBytes },
    refcountBits: 2 ** refcountOrder,
    // as QEMU calls it
    compression: compression === 'deflate' ? 'zlib' : compression,
    extendedL2: hasExtendedL2,
    lazyRefcounts: (compatible & COMPATIBLE.lazyRefcounts) !== 0n,
    dirty: isDirty(header),
    corrupt: isMarkedCorrupt(header),
    rawDataFile: (autoclear & AUTOCLEAR.rawDataFile) !== 0n,
    incompatibleFeatures: featureNames(incompatible, 'incompatible', header),
    compatibleFeatures: featureNames(compatible, 'compatible', header),
    autoclearFeatures: featureNames(autoclear, 'autoclear', header),
    headerBytes: header.headerBytes,
    l1Entries: header.l1.entries,
    refcountTableClusters: header.refcountTable.clusters,
  };
}

/** The names of bits; those that only the image knows are hostile input. */
function featureNames(
  bits: bigint,
  kind: 'incompatible' | 'compatible' | 'autoclear',
  { extensions }: Header,
): string[] {
  const set = Array.from({ length: 64 }, (_, bit) => bit).filter((bit) => ((bits >> BigInt(bit)) & 1n) !== 0n);
  return set.map((bit) => {
    const known = KNOWN_FEATURES.find((each) => each.kind === kind && each.bit === bit);
    const own = extensions.featureNames.find((each) => each.kind === kind && each.bit === bit);
    return known?.name ?? own?.name ?? `bit ${bit}`;
  });
}

function namesOf({ backing, hasDataFile, extensions }: Header): NamedFile[] {
  const names: NamedFile[] = [];
  if (hasDataFile && extensions.dataFile !== null)
    names.push({ role: 'data', name: extensions.dataFile, format: 'raw' });
  if (backing !== null) names.push({ role: 'backing', ...backing });
  return names;
}

async function* snapshotRows(image: Disk, header: Header): AsyncGenerator<Row> {
  for await (const { id, name, date, size, vmStateBytes } of visitSnapshots(image, header)) {
    yield { id, name, date: date.toISOString(), size, vmStateBytes };
  }
}

const BITMAP_BYTES = 24;
const IN_USE = 1;
const MOST_DIRECTORY_BYTES = 64 << 20;

/** The directory of bitmaps: see count-bitmaps.ts. 12 flags, 4   17 bits of the granularity, 1 */
async function* bitmapRows(image: Disk, { extensions, autoclear }: Header): AsyncGenerator<Row> {
  const { bitmaps } = extensions;
  if (bitmaps === null || (autoclear & AUTOCLEAR.bitmaps) === 0n) return;
  const [offset, bytes] = [Number(bitmaps.directoryOffset), Number(bitmaps.directoryBytes)];
  const reader = new RegionReader(image, offset, Math.min(bytes, MOST_DIRECTORY_BYTES));
  for (let i = 0; i < bitmaps.count; i++) {
    const head = await reader.next(BITMAP_BYTES);
    const [nameBytes, more] = head === null ? [0, 0] : [head.readUInt16BE(18), head.readUInt32BE(20)];
    const name = head !== null && reader.skip(more) ? await reader.next(nameBytes) : null;
    if (head === null || name === null) throw new FusetapError('FAILED', 'the directory of bitmaps is damaged');
    reader.skip((8 - ((nameBytes + more) % 8)) % 8);
    const usable = (head.readUInt32BE(12) & IN_USE) === 0;
    yield { name: name.toString(), granularityBytes: 2 ** head.readUInt8(17), usable };
  }
}
