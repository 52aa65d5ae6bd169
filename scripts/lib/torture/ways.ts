/** The ways to serve a disk: each kind of disk by threads, and with passthrough if the kernel can do that. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { open, writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { promisify } from 'node:util';
import type { NodeSpec } from '../../../drivers/graph.js';
import { checkImageFile } from '../../../mount/offline/check-image.js';
import { createImage } from '../../../mount/offline/create-image.js';

const run = promisify(execFile);

export interface Way {
  readonly driver: string;
  readonly passthrough: 'on' | 'off';
  /** in how many files the disk lies; default: 1 */
  readonly files?: number;
  /** how many parts of the size of a fio run the disk has; a run takes one of them; default: 1 */
  readonly parts?: number;
  /** the image is over a raw one */
  readonly isOverlay?: boolean;
}

export const WAYS = [
  { driver: 'aio', passthrough: 'off' },
  { driver: 'sync', passthrough: 'off' },
  { driver: 'ram', passthrough: 'off' },
  { driver: 'ram', passthrough: 'on' },
  { driver: 'aio', passthrough: 'on' },
] as const satisfies readonly Way[];

/** Images of formats. Runs come to parts that nobody has written yet, so they allocate. */
export const FORMAT_WAYS = {
  qcow2: [
    { driver: 'qcow2', passthrough: 'off', parts: 64 },
    { driver: 'qcow2', passthrough: 'off', parts: 64, isOverlay: true },
  ],
  vdi: [{ driver: 'vdi', passthrough: 'off', parts: 64 }],
  vhd: [
    { driver: 'vhd', passthrough: 'off', parts: 64 },
    { driver: 'vhd', passthrough: 'off', parts: 64, isOverlay: true },
  ],
} as const satisfies Readonly<Record<string, readonly Way[]>>;

/**
 * Disks that are more than a driver over a file: a map, and segments in several files. Only one of the formats: all of them at
 * once would be too much for a small machine.
 */
export const TREES: readonly Way[] = [
  { driver: 'snapshot', passthrough: 'off' },
  { driver: 'concat', passthrough: 'off', files: 3 },
  ...FORMAT_WAYS.qcow2,
];

/** The files of a disk, for its image. */
export function filesOfWay({ files = 1 }: Way, image: string): string[] {
  return files === 1 ? [image] : Array.from({ length: files }, (_, i) => `${image}.${i}`);
}

/** Makes the image of a way. @param partBytes the size of a fio run */
export async function makeImage(way: Way, image: string, partBytes: number): Promise<void> {
  if (way.parts !== undefined) return await makeFormat(way, image, partBytes);
  const files = filesOfWay(way, image);
  for (const [k, path] of files.entries()) {
    const file = await open(path, 'w');
    // parts of odd sizes; the last one has the rest
    const part = Math.floor(partBytes / files.length) + 7;
    await file.truncate(k < files.length - 1 ? part : partBytes - (files.length - 1) * part);
    await file.close();
  }
}

async function makeFormat(
  { driver, parts = 1, isOverlay = false }: Way,
  image: string,
  partBytes: number,
): Promise<void> {
  const base = `${image}.base`;
  if (isOverlay) await writeFile(base, randomBytes(partBytes));
  const backing = isOverlay ? { name: basename(base), format: 'raw' } : null;
  const size = parts * partBytes;
  await createImage({ path: image, format: driver, size, backing, options: {}, force: false });
}

/** The formats that `qemu-img check` knows; it does not know VHDs. */
const CHECKED_BY_QEMU = ['qcow2', 'vdi'];

/**
 * What is wrong with the image of a way after its detach; null if nothing is. A kill may leave clusters that nobody uses: a
 * qcow2 image stays dirty then until its next attach.
 */
export async function judgeImage({ driver }: Way, image: string): Promise<string | null> {
  if (!Object.hasOwn(FORMAT_WAYS, driver)) return null;
  const { result } = await checkImageFile({ path: image, drivers: [driver] }, { repairsLeaks: false });
  if (result.corruptionCount > 0) return `${image}: ${result.corruptions.join('; ')}`;
  if (result.isDirty && driver !== 'qcow2') return `${image}: it was not closed`;
  return CHECKED_BY_QEMU.includes(driver) ? await judgeByQemu(driver, image) : null;
}

async function judgeByQemu(format: string, image: string): Promise<string | null> {
  const LEAKS = 3;
  return await run('qemu-img', ['check', '-f', format, image]).then(
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
