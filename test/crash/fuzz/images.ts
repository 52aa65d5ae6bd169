/** Images whose copies are damaged, and where their headers and tables are. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Driver } from '../../../drivers/driver.js';
import { loadDriver } from '../../../drivers/registry.js';
import { cowdVmdk, type Grain, hostedVmdk, type SparseImage, streamVmdk } from '../../drivers/images/sparse-vmdk.js';
import { tarEnd, tarHeader } from '../../drivers/images/tar.js';
import { vmdkDescriptor } from '../../drivers/images/vmdk.js';
import { qemuImg, qemuIo } from '../../drivers/qemu.js';
import { vdiSubjects } from '../blocks/vdi.js';
import { vhdSubjects } from '../blocks/vhd.js';
import { vmdkSubjects } from '../blocks/vmdk.js';
import { withIdentity } from '../identity.js';
import { QCOW2_KINDS, qcow2Subject } from '../qcow2/subjects.js';
import { SparseBytes } from '../sparse-bytes.js';
import type { Subject } from '../subject.js';
import { type Files, fileOf } from '../tape.js';
import { DIRECTORY_AT } from '../toy/format.js';
import { toySubjects } from '../toy/subjects.js';
import type { Region } from './mutate.js';
import { loggedVhdx, sealVhdx, vhdxRegions } from './vhdx.js';

export interface FuzzImage extends Pick<Subject, 'name' | 'driver' | 'files'> {
  readonly regions: readonly Region[];
  /** the image counts who uses its space, so that a write to shared space can be refused; default: true */
  readonly knowsUsers?: boolean;
  /** Puts the right checksums into a damaged image, so that what is behind them is reached; most mutants have it. */
  readonly seal?: (file: SparseBytes) => void;
}

/** `toy` trusts its images: it shows that the harness finds something */
export const FUZZ_FORMATS = ['qcow2', 'vdi', 'vhd', 'vhdx', 'vmdk', 'tar', 'toy'] as const;
export type FuzzFormat = (typeof FUZZ_FORMATS)[number];

/** Makes the images of a format. @param directory empty */
export async function fuzzImages(format: FuzzFormat, directory: string): Promise<FuzzImage[]> {
  if (format === 'qcow2') return await qcow2Images(directory);
  if (format === 'toy') return toySubjects().map((subject) => ({ ...subject, regions: TOY_REGIONS }));
  const driver = await loadDriver(format);
  const path = join(directory, `a.${format}`);
  if (format === 'vhdx') return vhdxImages(driver, path);
  if (format === 'tar') return [await tarImage(driver, directory)];
  if (format === 'vdi') qemuImg('create', '-q', '-f', 'vdi', '-o', 'static=on', path, '5M');
  if (format === 'vhd') qemuImg('create', '-q', '-f', 'vpc', '-o', 'subformat=fixed,force_size=on', path, '2M');
  if (format === 'vmdk') return [...vmdkImages(driver), ...(await writableVmdks())];
  const tabled = format === 'vdi' ? await vdiSubjects() : await vhdSubjects();
  return [
    image(driver, { file: await SparseBytes.load(path) }, regionsOf(format)),
    ...tabled.map((subject): FuzzImage => {
      const regions = format === 'vdi' ? VDI_REGIONS : VHD_REGIONS;
      return { ...subject, regions, ...(format === 'vhd' && { seal: sealVhd }) };
    }),
  ];
}

/** The header and the map of vdiSubjects. */
const VDI_REGIONS: readonly Region[] = [
  { offset: 64, length: 448, word: 4, order: 'little' },
  { offset: 512, length: 164, word: 4, order: 'little' },
];

/** The copy of the footer, the header, the table, the batmap or what follows the table, and a bitmap of vhdSubjects. */
const VHD_REGIONS: readonly Region[] = [
  { offset: 0, length: 88, word: 4, order: 'big' },
  { offset: 512, length: 64, word: 4, order: 'big' },
  { offset: 512 + 576, length: 64, word: 4, order: 'big' },
  { offset: 1536, length: 84, word: 4, order: 'big' },
  { offset: 2048, length: 64, word: 4, order: 'big' },
  { offset: 3584, length: 32, word: 4, order: 'big' },
];

/** Puts right checksums into the footers and the header. */
function sealVhd(file: SparseBytes): void {
  for (const [at, length, sumAt] of [
    [0, 512, 64],
    [512, 1024, 36],
    [file.size - 512, 512, 64],
  ] as const) {
    if (at < 0 || at + length > file.size) continue;
    const part = Buffer.alloc(length);
    file.read(part, at);
    part.fill(0, sumAt, sumAt + 4);
    part.writeUInt32BE(0xffffffff - part.reduce((total, byte) => total + byte, 0), sumAt);
    file.write(part, at);
  }
}

const TOY_REGIONS: readonly Region[] = [
  { offset: 0, length: 32, word: 8, order: 'little' },
  { offset: DIRECTORY_AT, length: 64, word: 8, order: 'little' },
];

function image(driver: Driver, files: Files, regions: (file: SparseBytes) => Region[]): FuzzImage {
  return { name: driver.name, driver, files, regions: regions(fileOf(files, 'file')) };
}

function regionsOf(format: 'vdi' | 'vhd'): (file: SparseBytes) => Region[] {
  if (format === 'vdi') {
    return () => [
      { offset: 0, length: 512, word: 4, order: 'little' },
      { offset: 512, length: 64, word: 4, order: 'little' },
    ];
  }
  return ({ size }) => [{ offset: size - 512, length: 512, word: 4, order: 'big' }];
}

/** An image of QEMU, and one with a log. */
function vhdxImages(driver: Driver, path: string): FuzzImage[] {
  qemuImg('create', '-q', '-f', 'vhdx', '-o', 'block_size=1M', path, '5M');
  qemuIo('vhdx', path, 'write -P 3 900k 2M');
  const plain = { name: 'vhdx of QEMU', bytes: readFileSync(path) };
  const logged = { name: 'vhdx with a log', bytes: loggedVhdx() };
  return [plain, logged].map(({ name, bytes }) => {
    const files = { file: SparseBytes.from(bytes) };
    return { name, driver, files, regions: vhdxRegions(bytes), seal: sealVhdx };
  });
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

/** A descriptor of extents, and sparse extents of each kind: alone, over a parent, in an OVA. */
function vmdkImages(driver: Driver): FuzzImage[] {
  const grainBytes = 4096;
  const fields = { size: 50 * grainBytes, grainBytes, entries: 16 };
  const grains = new Map([0, 1, 2, 17, 49].map((number) => [number, Buffer.alloc(grainBytes, `grain ${number}`)]));
  const hosted = hostedVmdk(new Map<number, Grain>([...grains, [3, 'zeros']]), fields);
  const stream = streamVmdk(grains, fields);
  const parent = { parent: '12345678', settings: ['parentFileNameHint="base.vmdk"'] };
  const child = hostedVmdk(grains, { ...fields, descriptor: vmdkDescriptor(['RW 400 SPARSE "a"'], parent) });
  const text = vmdkDescriptor(['RW 4096 FLAT "a" 0', 'RW 200 SPARSE "b"', 'RW 64 ZERO', 'RW 8 VMFSSPARSE "c"']);
  const head = tarHeader({ name: 'a.vmdk', size: stream.bytes.length });
  const archive = Buffer.concat([head, stream.bytes, tarEnd]);
  const extents = {
    extent0: new SparseBytes(2 << 20),
    extent1: SparseBytes.from(hostedVmdk(grains, { ...fields, descriptor: null }).bytes),
    extent2: SparseBytes.from(cowdVmdk(new Map([[3, Buffer.alloc(512, 3)]]), { size: 4096 }).bytes),
  };
  const imageOf = (bytes: Buffer, regions: readonly Region[], others: Files = {}): FuzzImage => {
    return image(driver, { file: SparseBytes.from(bytes), ...others }, () => [...regions]);
  };
  const textRegion: Region = { offset: 0, length: text.length, word: 1, order: 'big' };
  const inArchive = sparseRegions(stream).map((region) => ({ ...region, offset: region.offset + head.length }));
  const flat = vmdkDescriptor(['RW 4096 FLAT "a" 0']);
  return [
    imageOf(flat, [{ ...textRegion, length: flat.length }], { extent0: extents.extent0 }),
    imageOf(text, [textRegion], extents),
    imageOf(hosted.bytes, sparseRegions(hosted)),
    imageOf(stream.bytes, sparseRegions(stream)),
    {
      ...imageOf(child.bytes, sparseRegions(child), { backing: SparseBytes.from(Buffer.alloc(100_000, 'parent')) }),
      driver: withIdentity(driver, '12345678'),
    },
    imageOf(archive, [...inArchive, { offset: 0, length: 512, word: 1, order: 'big' }]),
  ];
}

/** The header, the descriptor, and what follows it: directories and tables. */
async function writableVmdks(): Promise<FuzzImage[]> {
  const regions: readonly Region[] = [
    { offset: 0, length: 80, word: 4, order: 'little' },
    { offset: 12, length: 64, word: 8, order: 'little' },
    { offset: 512, length: 512, word: 1, order: 'little' },
    { offset: 1024, length: 4096, word: 4, order: 'little' },
    { offset: 1024, length: 64, word: 4, order: 'little' },
  ];
  return (await vmdkSubjects()).map((subject) => ({ ...subject, regions }));
}

/** The header, the footer, the descriptor, the tables, and the first bytes of grains. */
function sparseRegions({ bytes, directory, tables, grains }: SparseImage): Region[] {
  const region = (offset: number, length: number, word: Region['word'] = 4): Region => {
    return { offset, length: Math.min(length, bytes.length - offset), word, order: 'little' };
  };
  return [
    ...[region(0, 80), region(12, 32, 8), region(48, 24, 8), region(512, 512, 1)],
    ...[region(bytes.length - 1024, 80), region(bytes.length - 1012, 32, 8), region(directory, 16)],
    ...tables.filter((table) => table > 0).map((table) => region(table, 64)),
    ...[...grains.values()].map((grain) => region(grain, 40)),
  ];
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
