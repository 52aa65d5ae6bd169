/**
 * A SPEC as it was typed. The grammars of disk specs cut a word at its commas; if that gives no disk, but the word as a
 * whole names a file, the file is meant.
 */
import { existsSync } from 'node:fs';
import { FusetapError } from '../drivers/errors.js';
import { driverNames } from '../drivers/names.js';
import { named } from '../drivers/quote.js';
import { combineWords, type DiskSpec, parseWords, pathSpec } from './disk-spec/index.js';

/** The disk of the words `SPEC [VDEV] [MODE]`. @throws FusetapError as parseWords */
export function typedSpec(text: string, vdev?: string, mode?: string): DiskSpec {
  let spec: DiskSpec;
  try {
    spec = parseWords(text, vdev, mode);
  } catch (error) {
    const whole = existingFile(text);
    if (whole === null) throw existsSync(text) ? sayPath(error, text) : error;
    return combineWords(whole, vdev, mode);
  }
  // without a comma both mean the same file: it is not looked at, because its file system may hang
  if (!text.includes(',') || spec.image === null || spec.belowDev !== undefined || existsSync(spec.image)) return spec;
  const whole = existingFile(text);
  return whole === null ? spec : combineWords(whole, vdev, mode);
}

/** A word before a colon is never read as part of a path, so the name of such a file needs a directory. */
function sayPath(error: unknown, text: string): unknown {
  if (!(error instanceof FusetapError) || error.code !== 'NOT_FOUND') return error;
  return new FusetapError(error.code, error.message, { hint: `write ${named(`./${text}`)}`, cause: error });
}

/** The word as DRIVER:PATH or PATH, if that is an existing file. */
function existingFile(text: string): DiskSpec | null {
  const spec = pathSpec(text, driverNames);
  return spec !== null && spec.image !== null && existsSync(spec.image) ? spec : null;
}
