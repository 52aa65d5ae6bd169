/** Images whose copies are damaged, and where their headers and tables are. */
import { execFileSync } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Driver } from '../../../drivers/driver.js';
import { loadDriver } from '../../../drivers/registry.js';
import { qemuImg, qemuIo } from '../../drivers/qemu.js';
import { QCOW2_KINDS, qcow2Subject } from '../qcow2/subjects.js';
import { SparseBytes } from '../sparse-bytes.js';
import type { Subject } from '../subject.js';
import { type Files, fileOf } from '../tape.js';
import { DIRECTORY_AT } from '../toy/format.js';
import { toySubjects } from '../toy/subjects.js';
import type { Region } from './mutate.js';

export interface FuzzImage extends Pick<Subject, 'name' | 'driver' | 'files'> {
  readonly regions: readonly Region[];
  /** the image counts who uses its space, so that a write to shared space can be refused; default: true */
  readonly knowsUsers?: boolean;
}

/** `toy` trusts its images: it shows that the harness finds something */
export const FUZZ_FORMATS = ['qcow2', 'vdi', 'vhd', 'vmdk', 'tar', 'toy'] as const;
export type FuzzFormat = (typeof FUZZ_FORMATS)[number];

/** Makes the images of a format. @param directory empty */
export async function fuzzImages(format: FuzzFormat, directory: string): Promise<FuzzImage[]> {
  if (format === 'qcow2') return await qcow2Images(directory);
  if (format === 'toy') return toySubjects().map((subject) => ({ ...subject, regions: TOY_REGIONS }));
  const driver = await loadDriver(format);
  const path = join(directory, `a.${format}`);
  if (format === 'tar') return [await tarImage(driver, directory)];
  if (format === 'vdi') qemuImg('create', '-q', '-f', 'vdi', '-o', 'static=on', path, '5M');
  if (format === 'vhd') qemuImg('create', '-q', '-f', 'vpc', '-o', 'subformat=fixed,force_size=on', path, '2M');
  if (format !== 'vmdk') return [image(driver, { file: await SparseBytes.load(path) }, regionsOf(format))];
  qemuImg('create', '-q', '-f', 'vmdk', '-o', 'subformat=monolithicFlat', path, '2M');
  const files = { file: await SparseBytes.load(path), extent0: await SparseBytes.load(join(directory, 'a-flat.vmdk')) };
  return [image(driver, files, regionsOf(format))];
}

const TOY_REGIONS: readonly Region[] = [
  { offset: 0, length: 32, word: 8, order: 'little' },
  { offset: DIRECTORY_AT, length: 64, word: 8, order: 'little' },
];

function image(driver: Driver, files: Files, regions: (file: SparseBytes) => Region[]): FuzzImage {
  return { name: driver.name, driver, files, regions: regions(fileOf(files, 'file')) };
}

function regionsOf(format: 'vdi' | 'vhd' | 'vmdk'): (file: SparseBytes) => Region[] {
  if (format === 'vdi') {
    return () => [
      { offset: 0, length: 512, word: 4, order: 'little' },
      { offset: 512, length: 64, word: 4, order: 'little' },
    ];
  }
  if (format === 'vhd') return ({ size }) => [{ offset: size - 512, length: 512, word: 4, order: 'big' }];
  return ({ size }) => [{ offset: 0, length: Math.min(size, 1024), word: 1, order: 'big' }];
}

async function tarImage(driver: Driver, directory: string): Promise<FuzzImage> {
  await writeFile(join(directory, 'disk.img'), Buffer.alloc(20_000, 7));
  execFileSync('tar', ['-C', directory, '-cf', join(directory, 'a.tar'), 'disk.img']);
  const file = await SparseBytes.load(join(directory, 'a.tar'));
  return image(driver, { file }, () => [
    { offset: 0, length: 512, word: 1, order: 'big' },
    { offset: 20_480 + 512, length: 1024, word: 1, order: 'big' },
  ]);
}

async function qcow2Images(directory: string): Promise<FuzzImage[]> {
  const images: FuzzImage[] = [];
  for (const [index, kind] of QCOW2_KINDS.entries()) {
    if (kind === 'a full refcount table') continue;
    const own = join(directory, `${index}`);
    await mkdir(own);
    const { subject } = await qcow2Subject(kind, own);
    const regions = qcow2Regions(fileOf(subject.files, 'file'));
    // refcounts say nothing of a data file, whose places may be any if it is not raw
    images.push({ ...subject, regions, knowsUsers: kind !== 'with a data file' });
  }
  // with data in most clusters, so that there is much to lose
  const path = join(directory, 'full.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512', path, '80k');
  qemuIo('qcow2', path, 'write -P 5 0 70k');
  const file = await SparseBytes.load(path);
  const [first] = images;
  if (first !== undefined) images.push({ ...first, name: 'qcow2, full', files: { file }, regions: qcow2Regions(file) });
  return images;
}

/** The header, its extensions, and all tables of a qcow2 image. */
export function qcow2Regions(file: SparseBytes): Region[] {
  const bytes = file.toBuffer();
  const clusterBytes = 2 ** bytes.readUInt32BE(20);
  const word = (at: number): number => Number(bytes.readBigUInt64BE(at) & 0x00ff_ffff_ffff_fe00n);
  const region = (offset: number, length: number, size: Region['word'] = 8): Region => {
    return { offset, length: Math.min(length, bytes.length - offset), word: size, order: 'big' };
  };
  const [l1, l1Bytes] = [word(40), bytes.readUInt32BE(36) * 8];
  const [table, tableBytes] = [word(48), bytes.readUInt32BE(56) * clusterBytes];
  const named = (offset: number, length: number): number[] => {
    const places: number[] = [];
    for (let at = offset; at < offset + length; at += 8) if (word(at) > 0) places.push(word(at));
    return places;
  };
  const regions = [
    region(0, 112, 4),
    region(24, 64),
    region(112, 400, 4),
    region(l1, l1Bytes),
    region(table, Math.min(tableBytes, 64)),
    ...named(l1, l1Bytes).map((place) => region(place, clusterBytes)),
    ...named(table, tableBytes).map((place) => region(place, clusterBytes, 2)),
  ];
  const snapshots = word(64);
  return snapshots === 0 ? regions : [...regions, region(snapshots, 160, 4)];
}
