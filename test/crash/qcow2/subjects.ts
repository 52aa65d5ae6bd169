/** qcow2 images of QEMU to put under test: of each kind that is written in a different way. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loadDriver } from '../../../drivers/registry.js';
import { patternBytes } from '../../conformance/pattern.js';
import { qemuImg, qemuIo } from '../../drivers/qemu.js';
import { SparseBytes } from '../sparse-bytes.js';
import type { Judge, Subject } from '../subject.js';
import { contentOf, judgeByChecker, judgeByQemu } from './judges.js';

/** What an image begins with. */
interface Recipe {
  /** bytes of a cluster */
  readonly cluster: number;
  /** bytes of the disk */
  readonly size: number;
  /** options of `qemu-img create`, besides the size of clusters; DIR stands for the directory */
  readonly options?: readonly string[];
  /** bytes of a backing file */
  readonly backing?: { readonly size: number; readonly format: 'raw' | 'qcow2' };
  /** commands of qemu-io, or of qemu-img with IMAGE for the path */
  readonly steps?: readonly string[];
  readonly mayLeak?: boolean;
}

const KIB = 1024;
/** an L2 table of 512 bytes maps 32 KiB */
const SMALL = { cluster: 512, size: 80 * KIB };

const RECIPES = {
  empty: SMALL,
  'over a raw file': { ...SMALL, backing: { size: 41 * KIB + 100, format: 'raw' } },
  'over a qcow2 file': { ...SMALL, backing: { size: 50 * KIB, format: 'qcow2' } },
  'with data': { ...SMALL, steps: ['write -P 1 0 3k', 'write -P 2 30k 4k', 'write -P 3 79k 1k'] },
  'with zeros': {
    ...SMALL,
    backing: { size: 70 * KIB, format: 'raw' },
    steps: ['write -P 1 0 4k', 'write -z 1k 2k', 'discard 3k 1k', 'write -z 4k 3k'],
  },
  'with a snapshot': {
    ...SMALL,
    steps: ['write -P 1 0 8k', 'write -P 2 30k 4k', 'img snapshot -c one IMAGE', 'write -P 3 1k 1k'],
  },
  compressed: { cluster: KIB, size: 200 * KIB, steps: compressedWrites(12, KIB) },
  'extended L2': { cluster: 16 * KIB, size: 330 * KIB, options: ['extended_l2=on'] },
  'extended L2 over a raw file': {
    ...{ cluster: 16 * KIB, size: 330 * KIB, options: ['extended_l2=on'] },
    backing: { size: 200 * KIB, format: 'raw' },
    steps: ['write -P 1 17k 3k', 'write -z 33k 2k', 'write -P 1 100k 40k'],
  },
  preallocated: { ...SMALL, options: ['preallocation=metadata'] },
  'with a data file': { ...SMALL, options: ['data_file=DIR/data.raw'] },
  'with a raw data file': { ...SMALL, options: ['data_file=DIR/data.raw', 'data_file_raw=on'] },
  'refcounts of 1 bit': { ...SMALL, options: ['refcount_bits=1'] },
  // a block of refcounts covers 32 KiB, and the refcount table 2 MiB, which snapshots fill
  'a full refcount table': {
    ...SMALL,
    options: ['refcount_bits=64'],
    steps: [...snapshots(24), 'write 0 40k', 'img snapshot -c last IMAGE'],
  },
  'lazy refcounts': { ...SMALL, options: ['lazy_refcounts=on'], steps: ['write -P 1 0 3k'] },
  'with a bitmap': { ...SMALL, steps: ['img bitmap --add IMAGE one', 'write -P 1 0 3k'], mayLeak: true },
} satisfies Record<string, Recipe>;

export type Qcow2Kind = keyof typeof RECIPES;
export const QCOW2_KINDS = Object.keys(RECIPES) as Qcow2Kind[];

function compressedWrites(count: number, bytes: number): string[] {
  return Array.from({ length: count }, (_, index) => `write -c -P ${index + 1} ${index * bytes} ${bytes}`);
}

function snapshots(count: number): string[] {
  return Array.from({ length: count }, (_, at) => [`write -P ${at} 0 80k`, `img snapshot -c s${at} IMAGE`]).flat();
}

/** An image, and QEMU as its second judge. */
export interface JudgedSubject {
  readonly subject: Subject;
  readonly byQemu: Judge;
}

/** Makes an image in an empty directory, which must stay while it is judged. */
export async function qcow2Subject(kind: Qcow2Kind, directory: string): Promise<JudgedSubject> {
  const recipe: Recipe = RECIPES[kind];
  const path = join(directory, 'disk.qcow2');
  const options = [`cluster_size=${recipe.cluster}`, ...(recipe.options ?? [])].join(',').replaceAll('DIR', directory);
  const backing = recipe.backing && (await makeBacking(recipe.backing, directory));
  const below = backing === undefined ? [] : ['-b', backing.path, '-F', backing.format];
  qemuImg('create', '-q', '-f', 'qcow2', '-o', options, ...below, path, `${recipe.size}`);
  for (const step of recipe.steps ?? []) {
    if (step.startsWith('img ')) qemuImg(...step.slice(4).replace('IMAGE', path).split(' '));
    else qemuIo('qcow2', path, step);
  }
  const tableEntries = recipe.cluster / (options.includes('extended_l2') ? 16 : 8);
  const { mayLeak = false } = recipe;
  const subject: Subject = {
    name: `qcow2, ${kind}`,
    driver: await loadDriver('qcow2'),
    files: {
      file: await SparseBytes.load(path),
      ...(backing && { backing: SparseBytes.from(backing.content) }),
      ...(options.includes('data_file') && { data: await SparseBytes.load(join(directory, 'data.raw')) }),
    },
    content: await contentOf(path, directory),
    unitBytes: recipe.cluster,
    tableBytes: tableEntries * recipe.cluster,
    // a write of whole clusters over a backing file makes no copy, so it does not wait for its data to be durable
    maybeZeros: true,
    judge: judgeByChecker({ mayLeak }),
  };
  return { subject, byQemu: judgeByQemu(subject, directory, { mayLeak }) };
}

async function makeBacking(
  { size, format }: NonNullable<Recipe['backing']>,
  directory: string,
): Promise<{ readonly path: string; readonly format: string; readonly content: Buffer }> {
  const content = patternBytes(0, size, 99);
  content.fill(0, 9 * KIB, 12 * KIB);
  const raw = join(directory, 'base.raw');
  await writeFile(raw, content);
  if (format === 'raw') return { path: raw, format, content };
  const path = join(directory, 'base.qcow2');
  qemuImg('convert', '-f', 'raw', '-O', format, raw, path);
  return { path, format, content };
}
