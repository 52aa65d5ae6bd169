/**
 * A disk spec in parts: what every grammar is parsed to, and what is printed.
 */
import { FusetapError } from '../../drivers/errors.js';
import { quoted } from '../../drivers/quote.js';
import type { Mode } from '../../mount/images/mode.js';

export type DeviceType = 'disk' | 'cdrom';

export interface DiskSpec {
  driver: string;
  /** the path as given, relative ones too; null for a driver that was given none (`ram:`) */
  image: string | null;
  /** the canonical name of the slot; null where the first free one is wanted */
  vdev: string | null;
  /** null where none was given, which means `w` */
  mode: Mode | null;
  /** what was accepted although it means nothing here, one clause each, to be said with -v */
  notes: string[];
  /** a cdrom, which is always mode r; absent: a disk */
  devtype?: 'cdrom';
  /** xl's hotplug script; fusetap runs none */
  script?: string;
  /** xl's discard and no-discard; absent where neither was given */
  discard?: boolean;
}

/** How to name a file that the grammars cannot. */
export const APART_HINT = "a path that holds a comma or a colon goes apart: --driver aio --image 'a,b.img'";

/** A USAGE error about a disk spec. */
export function refuse(message: string, hint: string): FusetapError {
  return new FusetapError('USAGE', `disk spec: ${message}`, { hint });
}

/** The error for a drive without a medium, which xm and xl can say. */
export function refuseEmptyDrive(): FusetapError {
  return new FusetapError('UNSUPPORTED', 'disk spec: an empty drive has no image to attach', {
    hint: 'leave this disk out, or name an image',
  });
}

/** Control characters would break the lines that fusetap prints and reads; no image is named so by intent. */
export function hasControlCharacter(text: string): boolean {
  return /\p{Cc}/u.test(text);
}

const XM_MODES: ReadonlyMap<string, Mode> = new Map([
  ['r', 'r'],
  ['w', 'w'],
  ['w!', 'w!'],
]);

const XL_MODES: ReadonlyMap<string, Mode | null> = new Map<string, Mode | null>([
  ...XM_MODES,
  ['ro', 'r'],
  ['rw', 'w'],
  ['', null],
]);

/** xm's mode: exactly `r`, `w` or `w!`. */
export function parseXmMode(word: string): Mode {
  const mode = XM_MODES.get(word);
  if (mode === undefined) throw refuse(`no mode ${quoted(word)}`, 'use r, w or w! (write, sharing check waived)');
  return mode;
}

/** xl's access: xm's modes, `ro`, `rw`, and the empty word, which is the default. */
export function parseXlAccess(word: string): Mode | null {
  const mode = XL_MODES.get(word);
  if (mode === undefined) throw refuse(`no access ${quoted(word)}`, 'use r, ro, w, rw or w!');
  return mode;
}

/** Holds the rule that a cdrom is read-only, whatever mode was given, as xl does. */
export function settleMode(spec: DiskSpec): DiskSpec {
  if (spec.devtype !== 'cdrom' || spec.mode === 'r') return spec;
  const notes =
    spec.mode === null ? spec.notes : [...spec.notes, `a cdrom is read-only: mode ${spec.mode} is taken as r`];
  return { ...spec, mode: 'r', notes };
}
