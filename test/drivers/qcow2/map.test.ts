/**
 * What is told of the ranges of a disk, judged by `qemu-img map`: images of all shapes, written at random, alone and in
 * chains. The bytes must be where they are said to be.
 */
import { execFileSync } from 'node:child_process';
import { readSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import { openGraph } from '../../../drivers/graph/open-graph.js';
import { allExtents, type MapExtent, tellExtents } from '../../../drivers/map/map-extents.js';
import { randomNumbers, seedOf } from '../../rules/random.js';
import { makeFile, openTree } from '../graph-factory.js';
import { qemuImg, whyNoQemu } from '../qemu.js';

const skip = whyNoQemu();
const KIB = 1024;
const MIB = KIB * KIB;
t.setTimeout(300_000);

type Random = ReturnType<typeof randomNumbers>;

/** Writes at random with QEMU: data, zeros, and zeros that free their place. */
function scribble(image: string, size: number, unit: number, random: Random): void {
  const commands = Array.from({ length: 2 + random(6) }, () => {
    const offset = random(Math.floor(size / 512)) * 512;
    const length = Math.min(size - offset, unit * (1 + random(4)) + random(3) * 512);
    const what = [`write -P ${1 + random(200)}`, 'write -z', 'write -z -u', 'discard'][random(4)];
    return ['-c', `${what} ${offset} ${length}`];
  });
  execFileSync('qemu-io', ['-f', 'qcow2', ...commands.flat(), image], { stdio: 'ignore', cwd: dirname(image) });
}

type Facts = Omit<MapExtent, 'filename' | 'compressed'>;

/** The extents of QEMU in our form. */
function qemuExtents(format: string, image: string): Facts[] {
  // it looks up the name of a data file in the working directory
  const words = ['map', '-f', format, '--output', 'json', image];
  const told = JSON.parse(execFileSync('qemu-img', words, { encoding: 'utf8', cwd: dirname(image) })) as (Omit<
    Facts,
    'offset'
  > & {
    offset?: number;
  })[];
  // it gives an absent part of a cluster the place that the part would have
  return joined(told.map(({ offset, ...rest }) => ({ ...rest, offset: (rest.present ? offset : undefined) ?? null })));
}

function joined(extents: readonly Facts[]): Facts[] {
  const all: Facts[] = [];
  for (const { start, length, depth, present, zero, data, offset } of extents) {
    const last = all.at(-1);
    const isSame = (['depth', 'present', 'zero', 'data'] as const).every(
      (key) => last?.[key] === { depth, present, zero, data }[key],
    );
    const isNext =
      last !== undefined && (last.offset === null ? offset === null : last.offset + last.length === offset);
    if (isSame && isNext) all[all.length - 1] = { ...last, length: last.length + length };
    else all.push({ start, length, depth, present, zero, data, offset });
  }
  return all;
}

interface Mapped {
  readonly disk: Disk;
  readonly extents: (MapExtent & { readonly fd: number | null })[];
  close(): Promise<void>;
}

async function mapped(driver: string, image: string): Promise<Mapped> {
  const tree = await openTree({ driver, options: {}, on: { file: { file: image } } }, true);
  const disk = frontDisk(await openGraph(tree), { readOnly: true });
  const names = new Map(Object.values(tree.files).map(({ fd, path }) => [fd, path]));
  const fds = new Map([...names].map(([fd, path]) => [path, fd]));
  const extents: Mapped['extents'] = [];
  const all = allExtents(async (offset) => {
    const told = await tellExtents(disk, offset, disk.size - offset);
    return {
      ...told,
      extents: told.extents.map((extent) => ({ ...extent, filename: names.get(extent.fd ?? -1) ?? null })),
    };
  });
  for await (const extent of all) extents.push({ ...extent, fd: fds.get(extent.filename ?? '') ?? null });
  return { disk, extents, close: () => disk.close().finally(() => tree.close()) };
}

/** Fails if a byte is not where it is said to be, or not zero if that is said. */
async function checkBytes({ disk, extents }: Mapped): Promise<void> {
  let end = 0;
  for (const { start, length, zero, data, compressed, present, offset, fd } of extents) {
    if (start !== end) throw new Error(`the extent at ${start} follows one that ends at ${end}`);
    end += length;
    const bytes = Buffer.alloc(length);
    await disk.read(bytes, start);
    if ((zero || !present) && bytes.some((byte) => byte !== 0)) throw new Error(`${start}: not zeros`);
    if ((fd === null) !== (offset === null)) throw new Error(`${start}: a place without a file`);
    if (compressed && offset !== null) throw new Error(`${start}: compressed, and in a file`);
    if (fd === null || offset === null || !data) continue;
    const plain = Buffer.alloc(length);
    readSync(fd, plain, 0, length, offset);
    if (!plain.equals(bytes)) throw new Error(`${start}: other bytes at ${offset}`);
  }
  if (end !== disk.size) throw new Error(`the last extent ends at ${end}`);
}

/**
 * What must be the same. `data`: QEMU does not look for holes in a data file, so it does not know that some data is zeros.
 * `flat`: it calls a hole of a flat image data that is zeros; here it is a hole, as in a raw image.
 */
const SAME: Readonly<Record<'all' | 'data' | 'flat', (extent: Facts) => Facts>> = {
  all: (extent) => extent,
  data: (extent) => ({ ...extent, zero: extent.zero && !extent.data }),
  flat: (extent) => ({ ...extent, data: extent.data && !extent.zero }),
};

async function check(t: Test, driver: string, image: string, { name = '', same = SAME.all }) {
  const theirs = qemuExtents(QEMU_NAMES[driver] ?? driver, image);
  const own = await mapped(driver, image);
  t.same(joined(own.extents.map(same)), joined(theirs.map(same)), name);
  // last: what was read counts as data of the file, where it was only allocated
  await checkBytes(own);
  await own.close();
  return own.extents;
}

const QEMU_NAMES: Readonly<Record<string, string>> = { aio: 'raw', vhd: 'vpc' };

function create(image: string, options: string, size: number | null, backing?: { format: string; file: string }): void {
  const over = backing === undefined ? [] : ['-F', backing.format, '-b', basename(backing.file)];
  const sizes = size === null ? [] : [String(size)];
  qemuImg('create', '-q', '-f', 'qcow2', ...(options === '' ? [] : ['-o', options]), ...over, image, ...sizes);
}

const SHAPES: readonly (readonly [options: string, size: number, unit: number])[] = [
  ['cluster_size=64k', 3 * MIB + 512, 64 * KIB],
  ['cluster_size=512,refcount_bits=1', MIB, 512],
  ['cluster_size=2k', MIB, 2 * KIB],
  ['cluster_size=2M', 9 * MIB, 2 * MIB],
  ['cluster_size=4k,lazy_refcounts=on', MIB, 4 * KIB],
  ['extended_l2=on,cluster_size=16k', 2 * MIB, 4 * KIB],
  ['extended_l2=on,cluster_size=128k', 2 * MIB, 64 * KIB],
  ['compat=0.10,cluster_size=64k', 3 * MIB, 64 * KIB],
  ['preallocation=metadata', 3 * MIB, 64 * KIB],
  ['preallocation=metadata,extended_l2=on', 3 * MIB, 64 * KIB],
  ['preallocation=metadata,cluster_size=512', 2 * MIB, KIB],
  ['preallocation=falloc', 3 * MIB, 64 * KIB],
  ['preallocation=full', 3 * MIB, 64 * KIB],
];

for (const [options, size, unit] of SHAPES) {
  t.test(`images with ${options}`, { skip }, async (t) => {
    const random = randomNumbers(seedOf(t));
    for (let run = 0; run < 3; run++) {
      const image = join(t.testdir({}), `${run}.qcow2`);
      create(image, options, size);
      if (run > 0) scribble(image, size, unit, random);
      if (run === 2 && !options.includes('refcount_bits=1')) {
        qemuImg('snapshot', '-c', 'one', image);
        scribble(image, size, unit, random);
      }
      await check(t, 'qcow2', image, { name: `run ${run}` });
    }
  });
}

t.test('chains: other clusters, shorter and longer bases, zeros over data', { skip }, async (t) => {
  const random = randomNumbers(seedOf(t));
  const shapes = SHAPES.filter(([options]) => !/2M|preallocation/.test(options));
  for (let run = 0; run < 12; run++) {
    const directory = t.testdir({});
    const rawSize = (1 + random(3000)) * 512;
    const at = random(rawSize);
    const raw = await makeFile(join(directory, 'raw.img'), rawSize, [
      at,
      Buffer.alloc(Math.min(100_000, rawSize - at), 7),
    ]);
    let backing = { format: 'raw', file: raw };
    for (let depth = 0; depth < 3; depth++) {
      const [options, , unit] = shapes[random(shapes.length)] as (typeof SHAPES)[number];
      const size = (1 + random(4000)) * 512;
      const file = join(directory, `${depth}.qcow2`);
      create(file, options, size, backing);
      if (random(4) > 0) scribble(file, size, unit, random);
      await check(t, 'qcow2', file, { name: `run ${run}, ${depth + 1} over ${backing.format}` });
      backing = { format: 'qcow2', file };
    }
  }
});

t.test('compressed clusters are told, here and in a base', { skip }, async (t) => {
  const directory = t.testdir({});
  const raw = await makeFile(join(directory, 'raw.img'), MIB, [100_000, Buffer.alloc(300_000, 'text ')]);
  for (const options of ['compression_type=zlib', 'compression_type=zstd,extended_l2=on']) {
    const image = join(directory, 'a.qcow2');
    qemuImg('convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', options, raw, image);
    const above = join(directory, 'above.qcow2');
    create(above, '', null, { format: 'qcow2', file: image });
    for (const [file, depth] of [
      [image, 0],
      [above, 1],
    ] as const) {
      const extents = await check(t, 'qcow2', file, { name: options });
      const compressed = extents.filter((extent) => extent.compressed);
      t.same(
        compressed.map(({ start, length, depth, data }) => ({ start, length, depth, data })),
        [{ start: 65_536, length: 6 * 65_536, depth, data: true }],
      );
      t.ok(extents.every((extent) => extent.compressed === (extent.data && extent.offset === null)));
    }
  }
});

t.test('data in another file, which is looked at for holes', { skip }, async (t) => {
  const random = randomNumbers(seedOf(t));
  for (const raw of ['off', 'on']) {
    const directory = t.testdir({});
    const image = join(directory, `${raw}.qcow2`);
    const made = ['create', '-q', '-f', 'qcow2', '-o', `data_file=data.raw,data_file_raw=${raw}`, image, '2M'];
    execFileSync('qemu-img', made, { cwd: directory });
    scribble(image, 2 * MIB, 64 * KIB, random);
    const extents = await check(t, 'qcow2', image, { name: `data_file_raw=${raw}`, same: SAME.data });
    t.ok(extents.every(({ filename }) => filename === null || basename(filename) === 'data.raw'));
    if (raw === 'on') t.ok(extents.some(({ zero, data }) => zero && data));
  }
});

t.test('flat formats: where the disk is in their files', { skip }, async (t) => {
  const directory = t.testdir({});
  const raw = await makeFile(join(directory, 'raw.img'), 3 * MIB, [MIB, Buffer.alloc(300_000, 7)]);
  await check(t, 'aio', raw, { name: 'raw' });
  for (const [driver, format, options] of [
    ['vhd', 'vpc', 'subformat=fixed,force_size=on'],
    ['vdi', 'vdi', 'static=on'],
    ['vmdk', 'vmdk', 'subformat=monolithicFlat'],
  ] as const) {
    const image = join(directory, `a.${format}`);
    qemuImg('convert', '-f', 'raw', '-O', format, '-o', options, raw, image);
    await check(t, driver, image, { name: format, same: SAME.flat });
  }
});
