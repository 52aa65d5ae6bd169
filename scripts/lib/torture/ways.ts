/** The ways to serve a disk: each kind of disk by threads, and with passthrough if the kernel can do that. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { open, writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { promisify } from 'node:util';
import type { NodeSpec } from '../../../drivers/graph.js';

const run = promisify(execFile);

export interface Way {
  readonly driver: string;
  readonly passthrough: 'on' | 'off';
  /** in how many files the disk lies; default: 1 */
  readonly files?: number;
  /** how many parts of the size of a fio run the disk has; a run takes one of them; default: 1 */
  readonly parts?: number;
  /** the image is a qcow2 image over a raw one */
  readonly isOverlay?: boolean;
}

export const WAYS = [
  { driver: 'aio', passthrough: 'off' },
  { driver: 'sync', passthrough: 'off' },
  { driver: 'ram', passthrough: 'off' },
  { driver: 'ram', passthrough: 'on' },
  { driver: 'aio', passthrough: 'on' },
] as const satisfies readonly Way[];

/** Disks that are more than a driver over a file: a map, and segments in several files. */
export const TREES: readonly Way[] = [
  { driver: 'snapshot', passthrough: 'off' },
  { driver: 'concat', passthrough: 'off', files: 3 },
  // runs come to parts that nobody has written yet, so they allocate
  { driver: 'qcow2', passthrough: 'off', parts: 64 },
  { driver: 'qcow2', passthrough: 'off', parts: 64, isOverlay: true },
];

/** The files of a disk, for its image. */
export function filesOfWay({ files = 1 }: Way, image: string): string[] {
  return files === 1 ? [image] : Array.from({ length: files }, (_, i) => `${image}.${i}`);
}

/** Makes the image of a way. @param partBytes the size of a fio run */
export async function makeImage(way: Way, image: string, partBytes: number): Promise<void> {
  if (way.driver === 'qcow2') return await makeQcow2(way, image, partBytes);
  const files = filesOfWay(way, image);
  for (const [k, path] of files.entries()) {
    const file = await open(path, 'w');
    // parts of odd sizes; the last one has the rest
    const part = Math.floor(partBytes / files.length) + 7;
    await file.truncate(k < files.length - 1 ? part : partBytes - (files.length - 1) * part);
    await file.close();
  }
}

async function makeQcow2({ parts = 1, isOverlay = false }: Way, image: string, partBytes: number): Promise<void> {
  const base = `${image}.base`;
  if (isOverlay) await writeFile(base, randomBytes(partBytes));
  const below = isOverlay ? ['-F', 'raw', '-b', basename(base)] : [];
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...below, image, `${parts * partBytes}`]);
}

/** What is wrong with the image of a way after its detach; null if nothing is. A kill may leave clusters that nobody uses. */
export async function judgeImage({ driver }: Way, image: string): Promise<string | null> {
  if (driver !== 'qcow2') return null;
  const LEAKS = 3;
  return await run('qemu-img', ['check', '-f', 'qcow2', image]).then(
    () => null,
    (error: Error & { code?: number; stdout?: string }) =>
      error.code === LEAKS ? null : `${image}: ${error.stdout ?? error.message}`,
  );
}

/** What an attach request says of the disk. */
export function diskOfWay(way: Way, image: string): { driver: string; image: string } | { disk: NodeSpec } {
  const { driver, files = 1 } = way;
  if (files === 1) return { driver, image };
  const parts = filesOfWay(way, image).map((file, i) => [`part${i}`, { file }] as const);
  return { disk: { driver, options: {}, on: Object.fromEntries(parts) } };
}
