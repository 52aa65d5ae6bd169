/** Where the picture of a disk goes: to stdout, or to a new file. */
import { link, lstat, open, rename, rm } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { FusetapError } from '../../drivers/errors.js';
import { named } from '../../drivers/quote.js';

/** The options of a command that draws. */
export interface PictureOptions {
  /** true: to stdout */
  svg?: string | true;
  force?: boolean;
  json?: boolean;
}

const START = '<svg ';

/** Adds `--svg` and `--force` to a command. */
export function addPictureOptions(command: Command): Command {
  return command
    .option('--svg [FILE]', 'draw a picture instead, as SVG: into FILE, a new file, or to stdout')
    .option('--force', 'with --svg: replace FILE if it is a picture of fusetap');
}

/**
 * Looks at where the picture shall go, before a long map is read.
 * @throws FusetapError USAGE, or BUSY for a file that exists
 */
export async function checkTarget({ svg, force = false, json }: PictureOptions): Promise<void> {
  if (json) throw new FusetapError('USAGE', '--svg and --json contradict each other', { hint: 'give one of them' });
  if (isFile(svg) && (await exists(svg))) await refuseExisting(svg, force);
}

/**
 * Writes the document. A file appears when it is complete.
 * @throws FusetapError BUSY if the file exists, and `force` is not set or the file is no picture; FAILED
 */
export async function writePicture(text: string, { svg, force = false }: PictureOptions): Promise<void> {
  if (!isFile(svg)) {
    process.stdout.write(text);
    return;
  }
  const isNew = !(await exists(svg));
  if (!isNew) await refuseExisting(svg, force);
  const path = `${resolve(svg)}.${process.pid}.new`;
  try {
    const file = await open(path, 'wx');
    try {
      await file.writeFile(text).finally(() => file.close());
      // a file that appeared since then is not replaced
      if (isNew) await link(path, resolve(svg));
      else await rename(path, resolve(svg));
    } finally {
      await rm(path, { force: true });
    }
  } catch (error) {
    throw cannotWrite(svg, error);
  }
}

function isFile(svg: PictureOptions['svg']): svg is string {
  return typeof svg === 'string' && svg !== '-';
}

async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw cannotWrite(path, error);
  }
}

async function refuseExisting(path: string, force: boolean): Promise<void> {
  if (!force) {
    throw new FusetapError('BUSY', `${named(path)} exists`, {
      hint: 'choose another name, or replace a picture with --force',
    });
  }
  if (await isPicture(path)) return;
  throw new FusetapError('BUSY', `${named(path)} is no SVG picture of fusetap, so it is not replaced`, {
    hint: 'choose another name',
  });
}

/** Whether a path is a regular file that begins as ours do. An image must never be replaced by mistake. */
async function isPicture(path: string): Promise<boolean> {
  if (!(await lstat(path)).isFile()) return false;
  const file = await open(path, 'r');
  try {
    const bytes = Buffer.alloc(START.length);
    await file.read(bytes, 0, bytes.length, 0);
    return bytes.toString('latin1') === START;
  } finally {
    await file.close();
  }
}

function cannotWrite(path: string, error: unknown): FusetapError {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'EEXIST') return new FusetapError('BUSY', `${named(path)} exists`, { hint: 'choose another name' });
  const denied = code === 'EACCES' || code === 'EPERM' || code === 'EROFS';
  return new FusetapError(denied ? 'DENIED' : 'FAILED', `cannot write ${named(path)}: ${message}`, { path });
}
