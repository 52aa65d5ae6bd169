/** Images of several formats and shapes, for the targets that serve them. Each has the bytes of the image, or none yet. */
import { rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { runCommand } from '../command.js';
import type { Place } from './target.js';

interface ShapeFacts {
  readonly is: string;
  readonly driver: 'qcow2' | 'vhd' | 'vdi';
  /** as QEMU calls it */
  readonly format: 'qcow2' | 'vpc' | 'vdi';
  /** options of qemu-img */
  readonly options: readonly string[];
}

const QCOW2 = { driver: 'qcow2', format: 'qcow2', options: [] } as const;
const VHD = { driver: 'vhd', format: 'vpc', options: ['-o', 'force_size'] } as const;
const VDI = { driver: 'vdi', format: 'vdi', options: [] } as const;

export const SHAPES = {
  qcow2: { ...QCOW2, is: 'a qcow2 image, all of it allocated' },
  'qcow2-chain': { ...QCOW2, is: 'a chain of 8 qcow2 images, the data in the lowest' },
  'qcow2-compressed': { ...QCOW2, is: 'a compressed qcow2 image' },
  'qcow2-new': { ...QCOW2, is: 'a new qcow2 image: writes allocate' },
  vhd: { ...VHD, is: 'a dynamic VHD, all of it allocated' },
  'vhd-new': { ...VHD, is: 'a new dynamic VHD: writes allocate' },
  vdi: { ...VDI, is: 'a dynamic VDI, all of it allocated' },
  'vdi-new': { ...VDI, is: 'a new dynamic VDI: writes allocate' },
} as const satisfies Record<string, ShapeFacts>;
export type Shape = keyof typeof SHAPES;
export const shapes = Object.keys(SHAPES) as Shape[];

const LAYERS = 8;

/** Makes an image beside that of the target. @returns its path */
export async function makeShape(shape: Shape, { imagePath, sizeBytes, undo }: Place): Promise<string> {
  const { format, options }: ShapeFacts = SHAPES[shape];
  const image = (n: number): string => `${imagePath}.${n}.${format}`;
  undo.defer(async () => {
    for (let n = 0; n < LAYERS; n++) await rm(image(n), { force: true });
  });
  const create = ['create', '-q', '-f', format, ...options];
  if (shape.endsWith('-new')) {
    await runCommand('qemu-img', [...create, image(0), `${sizeBytes}`]);
    return image(0);
  }
  const compress = shape === 'qcow2-compressed' ? ['-c'] : [];
  const convert = ['convert', '-q', '-f', 'raw', '-O', format, ...options, ...compress, imagePath, image(0)];
  await runCommand('qemu-img', convert, { timeoutMs: 120_000 });
  if (shape !== 'qcow2-chain') return image(0);
  for (let n = 1; n < LAYERS; n++) {
    await runCommand('qemu-img', [...create, '-F', 'qcow2', '-b', basename(image(n - 1)), image(n)]);
  }
  return join(dirname(imagePath), basename(image(LAYERS - 1)));
}
