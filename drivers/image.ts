/** Functions on the image that the built-in drivers share. */
import { fstat } from 'node:fs';
import { promisify } from 'node:util';
import { blockDeviceSize } from '../system/libc.js';
import type { Disk } from './disk.js';
import type { Driver, Given, ImageFile, Window } from './driver.js';
import { FusetapError } from './errors.js';

const fstatAsync = promisify(fstat);

/** The role of a driver of one file, whose disk is that file. */
export const ONE_FILE = { file: { takes: 'file', access: 'as-parent' } } as const satisfies Driver['roles'];

/** The role of a driver that reads a format: a file there, or the disk of another driver, has the format. */
export const FORMAT_FILE = {
  file: { takes: 'disk', access: 'as-parent' },
} as const satisfies Driver['roles'];

/** The file under the role `file`, which must be there. @throws FusetapError USAGE if there is none */
export function requireImage({ files }: Pick<Given, 'files'>, driver: string): ImageFile {
  if (files.file) return files.file;
  throw new FusetapError('USAGE', `${driver}: no image was given`, { hint: `name one, as ${driver}:disk.img` });
}

/** The disk under the role `file`, which must be there. @throws FusetapError USAGE if there is none */
export function requireDisk({ disks }: Pick<Given, 'disks'>, driver: string): Disk {
  if (disks.file) return disks.file;
  throw new FusetapError('USAGE', `${driver}: no image was given`, { hint: `name one, as ${driver}:disk.img` });
}

/** The disks under a numbered role, in the order of their numbers. */
export function numberedDisks({ disks }: Pick<Given, 'disks'>, stem: string): { number: number; disk: Disk }[] {
  return Object.entries(disks)
    .filter(([role]) => /^\d+$/.test(role.slice(stem.length)) && role.startsWith(stem))
    .map(([role, disk]) => ({ number: Number(role.slice(stem.length)), disk }))
    .sort((a, b) => a.number - b.number);
}

/** The whole image as a window. */
export function imageWindow(image: ImageFile, options: { readOnly: boolean; durable: boolean }): Window {
  return { fd: image.fd, start: 0, size: image.sizeBytes, kind: image.kind, ...options };
}

/** The current size of the image in bytes. */
export async function measureImage(image: Pick<Window, 'fd' | 'kind'>): Promise<number> {
  return image.kind === 'block' ? blockDeviceSize(image.fd) : (await fstatAsync(image.fd)).size;
}
