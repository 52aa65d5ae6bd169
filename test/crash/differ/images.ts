/** Images of QEMU in random shapes: what they are made with, and what lies below them. */
import { execFileSync } from 'node:child_process';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Random } from '../../../scripts/lib/torture/second-faults/random.js';
import { patternBytes } from '../../conformance/pattern.js';

const KIB = 1024;
const MIB = 1 << 20;

export interface ImageShape {
  /** the driver, and the format in QEMU's words */
  readonly driver: string;
  readonly format: string;
  readonly size: number;
  readonly unitBytes: number;
  readonly canDiscard: boolean;
  /** programs that are run in the directory of the image, in order; the image is `disk` */
  readonly steps: readonly Step[];
  /** a file of the image that must have the bytes of the disk; null: none */
  readonly rawData: string | null;
  /** in a few words, for messages */
  readonly text: string;
}

type Step = readonly string[] | { readonly file: string; readonly size: number; readonly seed: number };

export const DIFFER_DRIVERS = ['aio', 'qcow2', 'vdi', 'vhd', 'vmdk'] as const;
export type DifferDriver = (typeof DIFFER_DRIVERS)[number];

/** The shape of an image for a driver, from a seed. */
export function randomShape(driver: DifferDriver, random: Random): ImageShape {
  if (driver === 'qcow2') return qcow2Shape(random);
  if (driver === 'vmdk' && !random.isOneIn(4)) return sparseVmdkShape(random);
  // of VDI and VHD both kinds are written: those with a table have blocks of 1 and 2 MiB
  const hasTable = (driver === 'vdi' || driver === 'vhd') && random.isOneIn(2);
  const size = (1 + random.below(hasTable ? 20 * KIB : 4 * KIB)) * 512;
  const [format, ...options] = {
    aio: ['raw'],
    vdi: ['vdi', '-o', hasTable ? 'static=off' : 'static=on'],
    vhd: ['vpc', '-o', `subformat=${hasTable ? 'dynamic' : 'fixed'},force_size=on`],
    vmdk: ['vmdk', '-o', 'subformat=monolithicFlat'],
  }[driver] as [string, ...string[]];
  const steps = [['qemu-img', 'create', '-q', '-f', format, ...options, 'disk', `${size}`]];
  return {
    driver,
    format,
    size,
    unitBytes: 4096,
    canDiscard: false,
    steps,
    rawData: null,
    text: `${format} ${size} ${options.join(' ')}`,
  };
}

/** A sparse VMDK, perhaps over another one. Each writes what the other one has made. */
function sparseVmdkShape(random: Random): ImageShape {
  // a table is of 32 MiB
  const size = (1 + random.below(random.isOneIn(6) ? 140 * KIB : 16 * KIB)) * 512;
  const hasZeros = random.isOneIn(2);
  const options = `subformat=monolithicSparse,zeroed_grain=${hasZeros ? 'on' : 'off'}`;
  const create = ['qemu-img', 'create', '-q', '-f', 'vmdk', '-o', options];
  const below = random.isOneIn(2) ? sparseVmdkBelow(random, size) : { steps: [], words: [], text: '' };
  const writes = startWrites(random, { size: Math.max(size, 65_536), unitBytes: 65_536, isCompressed: false });
  const inside = writes.filter((write) => endOf(write) <= size);
  return {
    ...{ driver: 'vmdk', format: 'vmdk', size, unitBytes: 65_536, canDiscard: false, rawData: null },
    steps: [
      ...below.steps,
      [...create, ...below.words, 'disk', `${size}`],
      ...(inside.length === 0 ? [] : [['qemu-io', '-f', 'vmdk', ...inside.flatMap((write) => ['-c', write]), 'disk']]),
    ],
    text: `vmdk ${size} ${options}${below.text}`,
  };
}

/** Where a command of startWrites ends. */
function endOf(command: string): number {
  const [offset = 0, length = 0] = command.split(' ').slice(-2).map(Number);
  return offset + length;
}

function sparseVmdkBelow(random: Random, size: number): Chain {
  const subformat = random.pick(['monolithicSparse', 'monolithicFlat', 'twoGbMaxExtentSparse']);
  // QEMU reads no byte of a parent that is behind the end of the parent
  const raw: Step = { file: 'base.raw', size, seed: random.below(100) };
  const convert = ['qemu-img', 'convert', '-f', 'raw', '-O', 'vmdk', '-o', `subformat=${subformat}`];
  return {
    steps: [raw, [...convert, 'base.raw', 'base.vmdk']],
    words: ['-b', 'base.vmdk', '-F', 'vmdk'],
    text: `, over ${subformat}`,
  };
}

/** A qcow2 image: all options that change how it is written. */
function qcow2Shape(random: Random): ImageShape {
  const isExtended = random.isOneIn(4);
  const unitBytes =
    2 ** (isExtended ? random.between(14, 18) : random.pick([9, 9, 10, 11, 12, 12, 13, 14, 16, 16, 17, 21]));
  const most = Math.min(12 * MIB, 150 * unitBytes);
  const size = Math.ceil((unitBytes + random.below(most)) / 512) * 512;
  const below = random.isOneIn(2) ? chain(random, size) : { steps: [], words: [], text: '' };
  const data = below.words.length === 0 && random.isOneIn(5) ? random.pick(['data', 'raw data']) : null;
  const isPreallocated = below.words.length === 0 && random.isOneIn(4);
  const refcountBits = random.pick([1, 2, 4, 8, 16, 16, 32, 64]);
  const options = [
    `cluster_size=${unitBytes}`,
    `refcount_bits=${refcountBits}`,
    ...(isExtended ? ['extended_l2=on'] : []),
    ...(random.isOneIn(4) ? ['lazy_refcounts=on'] : []),
    ...(random.isOneIn(3) ? ['compression_type=zstd'] : []),
    ...(data === null ? [] : ['data_file=disk.data', `data_file_raw=${data === 'data' ? 'off' : 'on'}`]),
    ...(isPreallocated ? [`preallocation=${random.pick(['metadata', 'falloc'])}`] : []),
  ].join(',');
  const writes = startWrites(random, { size, unitBytes, isCompressed: data === null && !isPreallocated });
  // streams share clusters, and a snapshot counts each once more
  const canSnapshot = data === null && refcountBits > 4;
  const snapshot = canSnapshot && random.isOneIn(4) ? [['qemu-img', 'snapshot', '-c', 'one', 'disk']] : [];
  return {
    ...{ driver: 'qcow2', format: 'qcow2', size, unitBytes, canDiscard: true },
    steps: [
      ...below.steps,
      ['qemu-img', 'create', '-q', '-f', 'qcow2', '-o', options, ...below.words, 'disk', `${size}`],
      ...(writes.length === 0 ? [] : [['qemu-io', '-f', 'qcow2', ...writes.flatMap((write) => ['-c', write]), 'disk']]),
      ...snapshot,
    ],
    rawData: data === 'raw data' ? 'disk.data' : null,
    text: `qcow2 ${size} ${options}${below.text}${snapshot.length > 0 ? ', a snapshot' : ''}`,
  };
}

/** What the image has at first: compressed clusters, data and zeros. QEMU compresses only clusters that have no place yet. */
function startWrites(
  random: Random,
  { size, unitBytes, isCompressed }: { size: number; unitBytes: number; isCompressed: boolean },
): string[] {
  const clusters = Math.floor(size / unitBytes);
  const some = (): number => random.below(clusters) * unitBytes;
  const compressed = new Set(Array.from({ length: isCompressed ? random.below(8) : 0 }, some));
  const byte = (): number => random.below(255) + 1;
  return [
    ...[...compressed].map((offset) => `write -q -c -P ${byte()} ${offset} ${unitBytes}`),
    ...Array.from({ length: random.below(8) }, () => {
      const offset = some();
      if (random.isOneIn(3)) return `write -q -z ${offset} ${unitBytes}`;
      return `write -q -P ${byte()} ${offset} ${Math.min(random.below(4 * unitBytes) + 1, size - offset)}`;
    }),
  ];
}

interface Chain {
  readonly steps: readonly Step[];
  readonly words: readonly string[];
  readonly text: string;
}

/** A backing file, shorter or longer than the disk, perhaps over another one. */
function chain(random: Random, size: number): Chain {
  const format = random.pick(['raw', 'raw', 'qcow2', 'qcow2', 'vdi', 'vpc', 'vmdk']);
  const sizeBelow =
    Math.ceil(random.pick([size, size + 7 * 512, Math.ceil(size / 2), Math.ceil(size / 3), 512]) / 512) * 512;
  const odd = format === 'raw' && random.isOneIn(3) ? 100 : 0;
  const raw: Step = { file: 'base.raw', size: sizeBelow + odd, seed: random.below(100) };
  const text = `, over ${format} ${sizeBelow + odd}`;
  if (format === 'raw') return { steps: [raw], words: ['-b', 'base.raw', '-F', 'raw'], text };
  if (format === 'qcow2' && random.isOneIn(2)) return overlay(random, raw, sizeBelow);
  const options = {
    qcow2: ['-c', '-o', `cluster_size=${random.pick([512, 4096, 65_536])}`],
    vdi: ['-o', 'static=on'],
    vpc: ['-o', 'subformat=fixed,force_size=on'],
    vmdk: ['-o', 'subformat=monolithicFlat'],
  }[format] as string[];
  const convert = ['qemu-img', 'convert', '-f', 'raw', '-O', format, ...options, 'base.raw', `base.${format}`];
  return { steps: [raw, convert], words: ['-b', `base.${format}`, '-F', format], text };
}

/** A qcow2 file over the raw one. */
function overlay(random: Random, raw: Step, size: number): Chain {
  const cluster = random.pick([512, 4096, 65_536]);
  const create = ['qemu-img', 'create', '-q', '-f', 'qcow2', '-o', `cluster_size=${cluster}`];
  const writes = [`write -q -P 7 0 ${Math.min(size, 3000)}`, `write -q -z ${Math.min(size - 512, cluster)} 512`];
  return {
    steps: [
      raw,
      [...create, '-b', 'base.raw', '-F', 'raw', 'base.qcow2', `${size}`],
      ['qemu-io', '-f', 'qcow2', ...writes.flatMap((write) => ['-c', write]), 'base.qcow2'],
    ],
    words: ['-b', 'base.qcow2', '-F', 'qcow2'],
    text: `, over qcow2 ${size} of ${cluster} over raw`,
  };
}

/** Makes an image. @returns its path */
export function makeImage({ steps }: ImageShape, directory: string): string {
  for (const step of steps) {
    if ('file' in step) makeRaw(join(directory, step.file), step.size, step.seed);
    else run(step, directory);
  }
  return join(directory, 'disk');
}

/** Data, and a hole in the middle. */
function makeRaw(path: string, size: number, seed: number): void {
  const part = Math.floor(size / 3);
  writeFileSync(path, patternBytes(0, part, seed));
  truncateSync(path, size);
  writeFileSync(
    path,
    Buffer.concat([patternBytes(0, part, seed), Buffer.alloc(part), patternBytes(0, size - 2 * part, seed)]),
  );
}

/** @throws Error with what the program said */
export function run([program = '', ...words]: readonly string[], directory: string, input = ''): string {
  const stdio: ['pipe', 'pipe', 'pipe'] = ['pipe', 'pipe', 'pipe'];
  const text = execFileSync(program, words, { cwd: directory, encoding: 'utf8', stdio, input });
  // qemu-io ends with 0 also if a command fails
  if (program === 'qemu-io' && /fail|error|invalid|unsupported/i.test(text)) throw new Error(`qemu-io: ${text.trim()}`);
  return text;
}
