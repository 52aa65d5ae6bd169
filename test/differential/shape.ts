/** Images of random shapes, which QEMU makes: the start of a trial. */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { MIN_EXTENDED_CLUSTER_BITS } from '../../drivers/qcow2/format/header.js';
import type { Random } from '../drivers/qcow2/broken-images.js';
import { PATTERN_FILES, patternFile } from './operations.js';

const MIB = 1 << 20;
const SECTOR = 512;
const KINDS = ['plain', 'chain', 'compressed', 'preallocated', 'snapshot', 'data file'] as const;

/** What is under the top image, the next one first. */
interface Layer {
  readonly format: 'raw' | 'qcow2';
  readonly size: number;
  readonly clusterBytes: number;
}

export interface Shape {
  readonly kind: (typeof KINDS)[number];
  readonly size: number;
  readonly clusterBytes: number;
  readonly hasExtendedL2: boolean;
  readonly refcountBits: number;
  readonly compression: 'zlib' | 'zstd';
  readonly below: readonly Layer[];
}

/** The image with the disk; what it needs is beside it. */
export const TOP = 'top.qcow2';

export function randomShape(random: Random): Shape {
  const kind = KINDS[random(KINDS.length)] ?? 'plain';
  const clusterBits = 9 + random(13);
  const clusterBytes = 2 ** clusterBits;
  const hasExtendedL2 = clusterBits >= MIN_EXTENDED_CLUSTER_BITS && random(3) === 0;
  // with one bit, no cluster can be shared
  const refcountBits = 2 ** (kind === 'snapshot' ? 1 + random(6) : random(7));
  const below = kind === 'chain' || (kind !== 'preallocated' && random(3) === 0) ? randomLayers(random) : [];
  const size = randomSize(clusterBytes, random);
  const compression = random(2) === 0 ? 'zlib' : 'zstd';
  return { kind, size, clusterBytes, hasExtendedL2, refcountBits, compression, below };
}

function randomLayers(random: Random): Layer[] {
  const depth = 1 + random(2);
  return Array.from({ length: depth }, (_, i): Layer => {
    const clusterBytes = 2 ** (9 + random(13));
    const isRaw = i === depth - 1 && random(2) === 0;
    // a raw file may end within a sector
    const size = randomSize(clusterBytes, random) - (isRaw && random(3) === 0 ? random(SECTOR) : 0);
    return { format: isRaw ? 'raw' : 'qcow2', size, clusterBytes };
  });
}

function randomSize(clusterBytes: number, random: Random): number {
  const most = Math.min(Math.max(6 * MIB, 6 * clusterBytes), 8192 * clusterBytes);
  return SECTOR * (1 + random(most / SECTOR));
}

/** Makes the images of a shape, and the files of patterns, in a directory. */
export function makeImages(shape: Shape, directory: string, random: Random): void {
  for (let i = 0; i < PATTERN_FILES.length; i++) writeFileSync(join(directory, patternName(i)), patternFile(i));
  const run = (program: string, ...words: string[]): string =>
    execFileSync(program, words, { cwd: directory, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  const names = shape.below.map(({ format }, i) => `below-${i}.${format}`);
  for (const [i, layer] of [...shape.below.entries()].reverse()) {
    const name = names[i] as string;
    const options = layer.format === 'raw' ? [] : ['-o', `cluster_size=${layer.clusterBytes}`];
    run(
      'qemu-img',
      'create',
      '-q',
      '-f',
      layer.format,
      ...options,
      ...backing(shape, names, i + 1),
      name,
      `${layer.size}`,
    );
    run('qemu-io', '-f', layer.format, ...filling(layer, random, 8), name);
  }
  run(
    'qemu-img',
    'create',
    '-q',
    '-f',
    'qcow2',
    '-o',
    optionsOf(shape, directory),
    ...backing(shape, names, 0),
    TOP,
    `${shape.size}`,
  );
  if (shape.kind === 'compressed') run('qemu-io', '-f', 'qcow2', ...compressing(shape, random), TOP);
  if (random(3) > 0) run('qemu-io', '-f', 'qcow2', ...filling(shape, random, 6), TOP);
  if (shape.kind === 'snapshot') run('qemu-img', 'snapshot', '-c', 'one', TOP);
}

function optionsOf({ kind, clusterBytes, hasExtendedL2, refcountBits, compression }: Shape, directory: string): string {
  const more = {
    preallocated: ['preallocation=metadata'],
    'data file': [`data_file=${join(directory, 'top.data')}`],
  } as Record<string, string[]>;
  const extended = hasExtendedL2 ? ['extended_l2=on'] : [];
  const zstd = compression === 'zstd' ? ['compression_type=zstd'] : [];
  return [
    `cluster_size=${clusterBytes}`,
    `refcount_bits=${refcountBits}`,
    ...extended,
    ...zstd,
    ...(more[kind] ?? []),
  ].join();
}

function backing({ below }: Shape, names: readonly string[], next: number): string[] {
  const [name, layer] = [names[next], below[next]];
  return name === undefined || layer === undefined ? [] : ['-F', layer.format, '-b', name];
}

export function patternName(index: number): string {
  return `pattern-${index}`;
}

/** Words of qemu-io that write to some places. */
function filling({ size }: Pick<Shape, 'size'>, random: Random, count: number): string[] {
  return Array.from({ length: count }, () => {
    const offset = random(size);
    const length = 1 + random(Math.ceil(Math.min(size - offset, size / 4)));
    return ['-c', `write -q -s ${patternName(random(PATTERN_FILES.length))} ${offset} ${length}`];
  }).flat();
}

function compressing({ size, clusterBytes }: Shape, random: Random): string[] {
  const clusters = Math.floor(size / clusterBytes);
  // QEMU does not compress a cluster that is there
  const places = new Set(Array.from({ length: Math.min(clusters, 40) }, () => random(clusters) * clusterBytes));
  return [...places].flatMap((place) => {
    const from = random(2) === 0 ? `-P ${random(256)}` : `-s ${patternName(random(PATTERN_FILES.length))}`;
    return ['-c', `write -q -c ${from} ${place} ${clusterBytes}`];
  });
}
