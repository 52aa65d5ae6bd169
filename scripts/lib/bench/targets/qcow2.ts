/** qcow2 images of several shapes, for the targets that serve them. Each has the bytes of the image, or none yet. */
import { rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { runCommand } from '../command.js';
import type { Place } from './target.js';

export const SHAPES = {
  qcow2: 'a qcow2 image, all of it allocated',
  'qcow2-chain': 'a chain of 8 qcow2 images, the data in the lowest',
  'qcow2-compressed': 'a compressed qcow2 image',
  'qcow2-new': 'a new qcow2 image: writes allocate',
} as const;
export type Shape = keyof typeof SHAPES;

const LAYERS = 8;

/** Makes an image beside that of the target. @returns its path */
export async function makeQcow2(shape: Shape, { imagePath, sizeBytes, undo }: Place): Promise<string> {
  const image = (n: number): string => `${imagePath}.${n}.qcow2`;
  undo.defer(async () => {
    for (let n = 0; n < LAYERS; n++) await rm(image(n), { force: true });
  });
  const create = ['create', '-q', '-f', 'qcow2'];
  if (shape === 'qcow2-new') {
    await runCommand('qemu-img', [...create, image(0), `${sizeBytes}`]);
    return image(0);
  }
  const compress = shape === 'qcow2-compressed' ? ['-c'] : [];
  const convert = ['convert', '-q', '-f', 'raw', '-O', 'qcow2', ...compress, imagePath, image(0)];
  await runCommand('qemu-img', convert, { timeoutMs: 120_000 });
  if (shape !== 'qcow2-chain') return image(0);
  for (let n = 1; n < LAYERS; n++) {
    await runCommand('qemu-img', [...create, '-F', 'qcow2', '-b', basename(image(n - 1)), image(n)]);
  }
  return join(dirname(imagePath), basename(image(LAYERS - 1)));
}
