/**
 * Parses a disk spec: first decides which grammar it has, then reads its parts. The grammars are in docs/cli.md.
 *
 *     text ──► form: xm or xl ──► scanParameters ──► parts, each by its own parser ──► DiskSpec
 *
 * The form is decided by the second field: empty or a format's name is xl, a vdev is xm. A field that is key=value or a
 * flag is xl's, and so is the whole spec when it is the first or second.
 */
import type { FusetapError } from '../../drivers/errors.js';
import { driverNames } from '../../drivers/names.js';
import { quoted } from '../../drivers/quote.js';
import { driverOfUri } from '../../drivers/remote-uris.js';
import type { Mode } from '../../mount/images/mode.js';
import {
  APART_HINT,
  type DeviceType,
  type DiskSpec,
  hasControlCharacter,
  LINK_HINT,
  parseXlAccess,
  parseXmMode,
  refuse,
  refuseEmptyDrive,
  settleMode,
} from './disk-spec.js';
import { noteMeaningless } from './notes.js';
import {
  isKeyField,
  isNamedField,
  type Parameters,
  scanParameters,
  trimmed,
  XL_POSITIONS,
  XM_POSITIONS,
} from './parameters.js';
import { parseTarget, refuseFormat, type Target } from './target.js';
import { isVdevField, parseDeviceType, parseVdevField } from './vdev.js';
import { CODED_FORMATS, FORMATS } from './words.js';

export interface ParseOptions {
  /** the names that are drivers in a target; default: the drivers that come with fusetap */
  drivers?: readonly string[];
  /** whether xl's form may omit the vdev, because it is given separately; default: false, as in xl */
  vdevIsOptional?: boolean;
}

/** Twice the length of the longest path and the longest line of keys. */
const MAX_LENGTH = 16_384;

type Form = 'plain' | 'xm' | 'xl';

/**
 * Parses a disk spec of any grammar.
 *
 * @throws FusetapError USAGE for text that no grammar allows, NOT_FOUND for an unknown driver, UNSUPPORTED for a format
 *   that has no driver and for an empty drive
 */
export function parseSpec(text: string, options: ParseOptions = {}): DiskSpec {
  const drivers = options.drivers ?? driverNames;
  if (trimmed(text) === '') throw refuse('it is empty', 'name an image: aio:disk.img, or just disk.img');
  if (text.length > MAX_LENGTH) throw refuse(`it has ${text.length} characters`, `use at most ${MAX_LENGTH}`);
  const form = formOf(text);
  const parameters =
    form === 'plain'
      ? // a path alone is taken as it was typed, also with a blank before it
        new Map([['target', { value: text, isNamed: false }] as const])
      : scanParameters(text, form === 'xm' ? XM_POSITIONS : XL_POSITIONS);
  const spec = specOf(parameters, form, drivers);
  if (form === 'xl' && spec.vdev === null && options.vdevIsOptional !== true) {
    throw refuse(`no vdev in ${quoted(text)}`, 'add vdev=xvda, or use the form PATH,VDEV,MODE');
  }
  return spec;
}

/** The text as DRIVER:PATH or PATH, whatever the path contains; null if no spec can have such a path or driver. */
export function pathSpec(text: string, drivers: readonly string[]): DiskSpec | null {
  try {
    const { driver, below, image } = parseTarget(text, drivers);
    if (image !== null && hasControlCharacter(image)) return null;
    return { driver, ...stacked(below), image, vdev: null, mode: null, notes: [] };
  } catch {
    return null;
  }
}

/**
 * Whether a word that may be a path names a driver: it begins with one, or is a URI that only a driver reads. A file of
 * such a name is meant if it has a directory: `./nbd:x`.
 */
export function namesDriver(text: string, drivers: readonly string[]): boolean {
  if (driverOfUri(text) !== null) return true;
  try {
    return parseTarget(text, drivers).hasDriver;
  } catch {
    // a word that no driver has, as in 10:30.img
    return drivers.some((driver) => text.startsWith(`${driver}:`));
  }
}

function stacked(below: readonly string[]): Pick<DiskSpec, 'below'> {
  return below.length === 0 ? {} : { below };
}

function formOf(text: string): Form {
  const [first = '', second] = text.split(',', 2).map(trimmed);
  if (isKeyField(first)) return 'xl';
  if (second === undefined) return 'plain';
  if (isNamedField(first) || isNamedField(second) || second === '' || FORMATS.includes(second)) return 'xl';
  if (isVdevField(second)) return 'xm';
  throw refuse(
    `the second field ${quoted(second)} is neither a vdev nor a format`,
    `write IMAGE,VDEV,MODE (disk.img,xvda,w) or IMAGE,FORMAT,VDEV,ACCESS (disk.img,raw,xvda,rw); ${APART_HINT}`,
  );
}

function specOf(parameters: Parameters, form: Form, drivers: readonly string[]): DiskSpec {
  refuseControlCharacters(parameters);
  const notes = noteMeaningless(parameters);
  const { vdev, devtype } = parseDevice(parameters);
  const target = parseImage(parameters, devtype, drivers);
  const { driver, below, image, isRaw } = target;
  const mode = parseAccess(parameters, form, isRaw);
  const script = parameters.get('script')?.value || null;
  const discard = parameters.get('discard')?.value;
  return settleMode({
    driver,
    ...stacked(below),
    image,
    vdev,
    mode,
    notes,
    ...(devtype === 'cdrom' && { devtype }),
    ...(script !== null && { script }),
    ...(discard !== undefined && { discard: discard === 'discard' }),
    ...belowDev(target, form),
  });
}

/** xl-disk-configuration(5), target: "/dev will be prepended if the path doesn't start with a '/'". */
function belowDev({ image, isDevice, hasDriver }: Target, form: Form): Pick<DiskSpec, 'belowDev'> {
  if (image === null || hasDriver || /^\.{0,2}\//.test(image)) return {};
  if (isDevice) return { belowDev: 'always' };
  return form === 'xl' ? { belowDev: 'if-no-file' } : {};
}

function refuseControlCharacters(parameters: Parameters): void {
  for (const [name, { value }] of parameters) {
    if (hasControlCharacter(value)) {
      throw refuse(`a control character in ${name} ${quoted(value)}`, name === 'target' ? LINK_HINT : 'remove it');
    }
  }
}

function parseDevice(parameters: Parameters): { vdev: string | null; devtype: DeviceType } {
  const word = parameters.get('vdev')?.value ?? '';
  const field = word === '' ? { vdev: null, devtype: null } : parseVdevField(word);
  const given = parameters.get('devtype')?.value || null;
  const named = given === null ? null : parseDeviceType(given);
  if (field.devtype !== null && named !== null && field.devtype !== named) {
    throw refuse(`devtype is given twice: ${field.devtype}, ${named}`, 'give it once');
  }
  return { vdev: field.vdev, devtype: named ?? field.devtype ?? 'disk' };
}

function parseImage(parameters: Parameters, devtype: DeviceType, drivers: readonly string[]): Target {
  const format = parameters.get('format')?.value ?? '';
  if (format === 'empty') throw refuseEmptyDrive();
  const reader = findReader(format, drivers);
  const text = parameters.get('target')?.value ?? '';
  if (text === '' && devtype === 'cdrom') throw refuseEmptyDrive();
  if (reader === null) return parseTarget(text, drivers);
  const target = parseTarget(text, drivers, reader);
  // the format is that of the image
  const bottom = target.below.at(-1) ?? target.driver;
  if (bottom === reader) return target;
  throw refuse(`format ${format} and driver ${bottom} contradict each other`, 'name one of them');
}

/** The name of the driver that reads the format; null for raw. */
function findReader(format: string, drivers: readonly string[]): string | null {
  if (format === '' || format === 'raw') return null;
  const readable = CODED_FORMATS.filter((coded) => drivers.includes(coded));
  if (readable.includes(format)) return format;
  if (CODED_FORMATS.includes(format)) throw refuseFormat(format);
  throw refuse(`no format ${quoted(format)}`, `use ${['raw', ...readable].join(', ')}`);
}

function parseAccess(parameters: Parameters, form: Form, isRaw: boolean): Mode | null {
  const access = parameters.get('access');
  if (access === undefined) return null;
  // xl's old form `raw:/img,hdc:cdrom,ro` has xm's order and xl's words
  const isXmMode = form === 'xm' && !access.isNamed && !isRaw;
  return isXmMode ? parseXmMode(access.value) : parseXlAccess(access.value);
}

/**
 * Merges the words that follow a spec on a command line (`attach SPEC [VDEV] [MODE]`) into it.
 *
 * @param vdev as in a spec: `xvdb`, `51728`, `hdc:cdrom`
 * @param mode `r`, `w` or `w!`
 * @throws FusetapError USAGE for words that are no vdev or mode, or that contradict the spec
 */
export function combineWords(spec: DiskSpec, vdev?: string, mode?: string): DiskSpec {
  const field = vdev === undefined ? null : parseVdevField(vdev);
  const given = mode === undefined ? null : parseXmMode(mode);
  if (field !== null && spec.vdev !== null && field.vdev !== spec.vdev) {
    throw refuseContradiction('vdev', spec.vdev, field.vdev);
  }
  if (given !== null && spec.mode !== null && given !== spec.mode) throw refuseContradiction('mode', spec.mode, given);
  return settleMode({
    ...spec,
    vdev: field?.vdev ?? spec.vdev,
    mode: given ?? spec.mode,
    ...(field?.devtype === 'cdrom' && { devtype: 'cdrom' }),
  });
}

function refuseContradiction(what: string, inSpec: string, apart: string): FusetapError {
  return refuse(`${what} ${inSpec} in the spec, ${apart} after it`, `give the ${what} once`);
}

/** Parses the arguments of `attach SPEC [VDEV] [MODE]`: with a separate VDEV, xl's form may omit the vdev. */
export function parseWords(text: string, vdev?: string, mode?: string, options: ParseOptions = {}): DiskSpec {
  const vdevIsOptional = options.vdevIsOptional === true || vdev !== undefined;
  return combineWords(parseSpec(text, { ...options, vdevIsOptional }), vdev, mode);
}
