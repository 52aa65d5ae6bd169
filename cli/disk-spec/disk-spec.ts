/**
 * A disk spec in parts: the result of every parser, and the input of the printer.
 */
import { FusetapError } from '../../drivers/errors.js';
import { quoted } from '../../drivers/quote.js';
import type { Mode } from '../../mount/images/mode.js';

export type DeviceType = 'disk' | 'cdrom';

export interface DiskSpec {
  /** the top: the disk is what it shows */
  driver: string;
  /** the drivers below it, the next one first: `ram:vhd:PATH` has vhd below ram; default: none */
  below?: readonly string[];
  /** the path as given, relative ones too; null if the spec has none (`ram:`) */
  image: string | null;
  /** the canonical name of the slot; null: the first free one */
  vdev: string | null;
  /** null if none was given, which means `w` */
  mode: Mode | null;
  /** what was accepted but has no effect here, one clause each; printed with -v */
  notes: string[];
  /** a cdrom, which is always mode r; default: a disk */
  devtype?: 'cdrom';
  /** xl's hotplug script; fusetap runs none */
  script?: string;
  /** xl's discard and no-discard; undefined if neither was given */
  discard?: boolean;
  /**
   * A relative image may be the name of a device below /dev, as for Xen's tools: always if it has the prefix `phy:`, or
   * if there is no such file in xl's form; default: it is a file
   */
  belowDev?: 'always' | 'if-no-file';
}

/** The hint for a path that the grammars would cut; every command that takes a spec takes this form. */
export const APART_HINT = 'a path that contains a comma comes last: format=raw,vdev=xvda,target=PATH';

/** The hint for an image that cannot be named on one line. */
export const LINK_HINT = 'name it by a symbolic link without such characters';

/** A USAGE error about a disk spec. */
export function refuse(message: string, hint: string): FusetapError {
  return new FusetapError('USAGE', `disk spec: ${message}`, { hint });
}

/** The error for a drive without a medium, which specs of xm and xl can have. */
export function refuseEmptyDrive(): FusetapError {
  return new FusetapError('UNSUPPORTED', 'disk spec: an empty drive has no image to attach', {
    hint: 'leave this disk out, or name an image',
  });
}

/** Control characters would break the lines that fusetap prints and reads; no image is named like that on purpose. */
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
  if (mode === undefined) throw refuse(`no mode ${quoted(word)}`, 'use r, w or w! (write, without the sharing check)');
  return mode;
}

/** xl's access: xm's modes, `ro`, `rw`, and the empty word, which is the default. */
export function parseXlAccess(word: string): Mode | null {
  const mode = XL_MODES.get(word);
  if (mode === undefined) throw refuse(`no access ${quoted(word)}`, 'use r, ro, w, rw or w!');
  return mode;
}

/** Makes a cdrom read-only, whatever mode was given, as xl does. */
export function settleMode(spec: DiskSpec): DiskSpec {
  if (spec.devtype !== 'cdrom' || spec.mode === 'r') return spec;
  const notes =
    spec.mode === null ? spec.notes : [...spec.notes, `a cdrom is read-only: mode r is used, not ${spec.mode}`];
  return { ...spec, mode: 'r', notes };
}
