/** qcow2 images that QEMU makes, with all its options, and QEMU's judgement of images. */
import { spawnSync } from 'node:child_process';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import { wholeImageDisk } from '../../../drivers/segments/growing-file.js';
import { qemuImg, qemuIo } from '../qemu.js';

/** An image file as the disk that a driver of a format is given; its `close` closes the file. */
export async function openFileDisk(path: string, { readOnly }: { readOnly: boolean }): Promise<Disk> {
  const file = await open(path, readOnly ? 'r' : 'r+');
  const { size } = await file.stat();
  const raw = wholeImageDisk({ fd: file.fd, start: 0, size, kind: 'file', readOnly, durable: false });
  const disk = frontDisk(raw, { readOnly });
  const close = disk.close.bind(disk);
  disk.close = () => close().finally(() => file.close());
  return disk;
}

/** What `qemu-img check` says. */
export interface QemuCheck {
  /** 0 clean, 2 corruptions, 3 leaks, 1 it could not check */
  readonly status: number | null;
  readonly corruptions: number;
  readonly leaks: number;
  readonly imageEnd: number;
  readonly clusters: { total: number; allocated: number; fragmented: number; compressed: number };
  readonly stderr: string;
}

export function qemuCheck(path: string): QemuCheck {
  const words = ['check', '-f', 'qcow2', '--output=json', path];
  // a broken image can have a line for each of its clusters
  const { status, stdout, stderr } = spawnSync('qemu-img', words, { encoding: 'utf8', maxBuffer: 256 << 20 });
  const said = stdout.startsWith('{') ? (JSON.parse(stdout) as Record<string, number>) : {};
  const number = (key: string): number => said[key] ?? 0;
  const clusters = {
    total: number('total-clusters'),
    allocated: number('allocated-clusters'),
    fragmented: number('fragmented-clusters'),
    compressed: number('compressed-clusters'),
  };
  const [corruptions, leaks, imageEnd] = [number('corruptions'), number('leaks'), number('image-end-offset')];
  return { status, corruptions, leaks, imageEnd, clusters, stderr };
}

interface Recipe {
  readonly options?: string;
  /** commands of qemu-io and, with `img`, of qemu-img; IMAGE stands for the path */
  readonly steps: readonly (string | { readonly img: string })[];
}

const WRITES = ['write -P 1 0 1M', 'write -P 2 5M 100k', 'write -z 9M 128k', 'discard 0 64k'];
const snapshot = (what: string): { img: string } => ({ img: `snapshot ${what} IMAGE` });

const RECIPES: Readonly<Record<string, Recipe>> = {
  plain: { steps: WRITES },
  empty: { steps: [] },
  'small clusters': { options: 'cluster_size=512', steps: WRITES },
  'large clusters': { options: 'cluster_size=2M', steps: WRITES },
  'version 2': { options: 'compat=0.10', steps: WRITES },
  'extended L2': { options: 'extended_l2=on', steps: ['write 0 3k', 'write 100k 6k', 'write 5M 1M', 'write -z 9M 6k'] },
  'extended L2, preallocated': { options: 'extended_l2=on,preallocation=metadata', steps: ['write 0 3k'] },
  preallocated: { options: 'preallocation=metadata', steps: ['write 0 3k'] },
  'preallocated space': { options: 'preallocation=falloc', steps: [] },
  'lazy refcounts': { options: 'lazy_refcounts=on', steps: WRITES },
  deflate: { steps: ['write -c -P 1 0 64k', 'write -c -P 2 64k 64k', 'write 128k 64k', 'write 0 512'] },
  zstd: { options: 'compression_type=zstd', steps: ['write -c -P 1 0 64k', 'write -c -P 2 64k 64k', 'write 128k 64k'] },
  'many streams': {
    options: 'cluster_size=4k',
    steps: Array.from({ length: 12 }, (_, i) => `write -c -P ${i} ${i * 4}k 4k`),
  },
  snapshots: { steps: ['write 0 1M', snapshot('-c a'), 'write 512k 1M', snapshot('-c b'), 'write 0 64k'] },
  'snapshots of many tables': {
    options: 'cluster_size=1k',
    steps: ['write 0 1M', snapshot('-c a'), 'write 512k 1M', snapshot('-c b'), 'write 0 64k', snapshot('-d a')],
  },
  bitmaps: { steps: [{ img: 'bitmap --add IMAGE one' }, ...WRITES, { img: 'bitmap --add IMAGE two' }] },
  'data file': { options: 'data_file=IMAGE.data', steps: WRITES },
  'raw data file': { options: 'data_file=IMAGE.data,data_file_raw=on', steps: ['write 0 1M', 'write 3M 64k'] },
  ...Object.fromEntries(
    [1, 2, 4, 8, 16, 32, 64].map((bits): [string, Recipe] => [
      `refcounts of ${bits} bits`,
      { options: `refcount_bits=${bits},cluster_size=4k`, steps: WRITES },
    ]),
  ),
};

export const RECIPE_NAMES: readonly string[] = Object.keys(RECIPES);

/** Makes an image of 32 MiB. @returns its path */
export function makeQemuImage(name: string, directory: string): string {
  const { options = '', steps } = RECIPES[name] as Recipe;
  const path = join(directory, `${name.replaceAll(/[ ,]/g, '-')}.qcow2`);
  const words = options === '' ? [] : ['-o', options.replaceAll('IMAGE', path)];
  qemuImg('create', '-q', '-f', 'qcow2', ...words, path, '32M');
  for (const step of steps) {
    if (typeof step === 'string') qemuIo('qcow2', path, step);
    else qemuImg(...step.img.split(' ').map((word) => (word === 'IMAGE' ? path : word)));
  }
  return path;
}
