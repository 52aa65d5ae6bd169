/** Overlays of QEMU over bases of all shapes, opened so that they can be committed. */
import { execFileSync } from 'node:child_process';
import { cp } from 'node:fs/promises';
import { basename, join } from 'node:path';
import aio from '../../../drivers/aio/index.js';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import type { ImageFile, RawDisk } from '../../../drivers/driver.js';
import { gated } from '../../../drivers/filters/gated.js';
import { wrapDisk } from '../../../drivers/filters/wrap-disk.js';
import { type OpenedGraph, openGraph } from '../../../drivers/graph/open-graph.js';
import qcow2 from '../../../drivers/qcow2/index.js';
import { patternBytes } from '../../conformance/pattern.js';
import { makeFile, openTree } from '../graph-factory.js';
import { qemuImg } from '../qemu.js';

export const KIB = 1024;
export const MIB = 1 << 20;

/** The files of a chain, in one directory. */
export interface Chain {
  readonly overlay: string;
  /** what the overlay is over */
  readonly base: string;
  readonly baseFormat: 'raw' | 'qcow2';
}

export interface ChainShape {
  /** bytes of the disk of the overlay */
  readonly size: number;
  /** of the base; default: as the overlay */
  readonly baseSize?: number;
  /** options of `qemu-img create`; null: the base is a raw image; default: a raw image */
  readonly baseOptions?: string | null;
  /** what the base is over, a raw image of its size; default: nothing */
  readonly hasBelow?: boolean;
  readonly options?: string;
  /** commands of qemu-io for the overlay */
  readonly writes: readonly string[];
}

/** Makes a base with bytes nearly everywhere, and an overlay. */
export async function makeChain(directory: string, shape: ChainShape): Promise<Chain> {
  const { size, baseSize = size, baseOptions = null, hasBelow = false, options = 'compat=1.1', writes } = shape;
  const baseFormat = baseOptions === null ? 'raw' : 'qcow2';
  const below = join(directory, 'below.img');
  if (hasBelow) await makeFile(below, baseSize, [0, patternBytes(0, baseSize, 5)]);
  const base = join(directory, `base.${baseFormat}`);
  if (baseOptions === null) await makeFile(base, baseSize, [0, patternBytes(0, baseSize, 3)]);
  else {
    const over = hasBelow ? ['-F', 'raw', '-b', 'below.img'] : [];
    qemuImg('create', '-q', '-f', 'qcow2', '-o', baseOptions, ...over, base, String(baseSize));
    io(base, [`write -P 33 64k ${Math.floor(baseSize / 2)}`, 'write -P 34 0 512', `write -z ${baseSize - 2 * MIB} 1M`]);
  }
  const overlay = join(directory, 'overlay.qcow2');
  const named = ['-F', baseFormat, '-b', basename(base)];
  inDirectory(directory, () => {
    qemuImg('create', '-q', '-f', 'qcow2', '-o', options, ...named, overlay, String(size));
    io(overlay, writes);
  });
  return { overlay, base, baseFormat };
}

export function io(image: string, commands: readonly string[]): void {
  if (commands.length === 0) return;
  const words = commands.flatMap((command) => ['-c', command]);
  const text = execFileSync('qemu-io', ['-f', 'qcow2', ...words, image], { encoding: 'utf8' });
  if (/fail|error/i.test(text)) throw new Error(`qemu-io: ${text}`);
}

/** QEMU looks up data files in the working directory. */
export function inDirectory(directory: string, work: () => void): void {
  const before = process.cwd();
  process.chdir(directory);
  try {
    work();
  } finally {
    process.chdir(before);
  }
}

/** The same chain in another directory. */
export async function copyChain({ overlay, base, baseFormat }: Chain, from: string, to: string): Promise<Chain> {
  await cp(from, to, { recursive: true });
  return { overlay: join(to, basename(overlay)), base: join(to, basename(base)), baseFormat };
}

export interface OpenChoice {
  /** default: true; false: as an attach does */
  readonly writesBase?: boolean;
  /** replaces calls of the base, which is a raw image then */
  readonly change?: (base: RawDisk) => Partial<RawDisk>;
  /** the same for the image */
  readonly changeImage?: (image: RawDisk) => Partial<RawDisk>;
}

/** Opens an overlay. Its `close` closes the files too. */
export async function openOverlay(overlay: string, choice: OpenChoice = {}): Promise<RawDisk> {
  const { writesBase = true, change, changeImage } = choice;
  const tree = await openTree({ driver: 'qcow2', options: {}, on: { file: { file: overlay } } }, false);
  const opened = { ...tree, repaired: ['', 'backing'], ...(writesBase && { writes: 'backing' }) };
  const isChanged = change !== undefined || changeImage !== undefined;
  const raw = await (isChanged ? openOver(opened, choice) : openGraph(opened));
  return wrapDisk(raw, { close: () => raw.close().finally(() => tree.close()) });
}

const unchanged = (): Partial<RawDisk> => ({});

async function openOver(
  { files }: OpenedGraph,
  { change = unchanged, changeImage = unchanged }: OpenChoice,
): Promise<RawDisk> {
  const open = async (image: ImageFile | undefined): Promise<RawDisk> => {
    const given = { files: { file: image as ImageFile }, disks: {} };
    return await aio.open({ ...given, memory: null, state: null, readOnly: false, isRepaired: true, options: {} });
  };
  const [image, base] = [await open(files.file), await open(files.backing ?? files['backing/file'])];
  const disks = {
    file: frontDisk(wrapDisk(image, changeImage(image)), { readOnly: false }),
    backing: frontDisk(wrapDisk(base, change(base)), { readOnly: false }),
  };
  const context = { files: {}, memory: null, state: null, readOnly: false, isRepaired: true, options: {} };
  return gated(await qcow2.open({ ...context, disks }));
}

const never = new AbortController().signal;

/** Commits a disk. @returns what the last report of its progress said */
export async function commit(
  disk: Pick<Disk, 'commit'>,
  signal: AbortSignal = never,
): Promise<readonly [number, number]> {
  let last: readonly [number, number] = [0, 0];
  await disk.commit({ signal, progress: (done, total) => (last = [done, total]) });
  return last;
}

/** Commits an overlay, and closes it. */
export async function commitOverlay(overlay: string): Promise<void> {
  const disk = frontDisk(await openOverlay(overlay), { readOnly: false });
  try {
    await commit(disk);
  } finally {
    await disk.close();
  }
}

export async function contentOf(disk: Disk): Promise<Buffer> {
  const bytes = Buffer.alloc(disk.size);
  await disk.read(bytes, 0);
  return bytes;
}
