/**
 * The target of a disk spec: driver and path.
 *
 *     [tap:|tap2:|tapdisk:|ioemu:|file:|phy:|raw:]…  [DRIVER:[raw:]]  PATH
 *
 * Everything after DRIVER: is the path, with its colons. A word before a colon that could be a driver's name is never
 * read as part of a path: a typing error must not open a file.
 */
import { FusetapError } from '../../drivers/errors.js';
import { DEFAULT_DRIVER, factsOf } from '../../drivers/names.js';
import { quoted } from '../../drivers/quote.js';
import { refuse } from './disk-spec.js';
import { CODED_FORMATS, FORMATS, PREFIXES } from './words.js';

export interface Target {
  driver: string;
  image: string | null;
  /** it had `raw:`, xl's old way to name the format */
  isRaw: boolean;
  /** it had `phy:`, Xen's prefix of a device */
  isDevice: boolean;
  /** it names its driver */
  hasDriver: boolean;
}

const WORD = /^([a-z][a-z0-9-]*):/;

/**
 * @param drivers the names that are drivers
 * @param unnamed the driver if the target names none
 * @throws FusetapError NOT_FOUND for an unknown driver, UNSUPPORTED for a format without a driver, USAGE for a
 *   missing path
 */
export function parseTarget(text: string, drivers: readonly string[], unnamed: string = DEFAULT_DRIVER): Target {
  let rest = text;
  let [isRaw, isDevice] = [false, false];
  for (;;) {
    const word = WORD.exec(rest)?.[1];
    if (word === undefined)
      return { driver: unnamed, image: parsePath(unnamed, rest), isRaw, isDevice, hasDriver: false };
    rest = rest.slice(word.length + 1);
    if (drivers.includes(word)) return parseDriverTarget(word, rest, { isRaw, isDevice, hasDriver: true });
    if (word === 'raw') isRaw = true;
    else if (word === 'phy') isDevice = true;
    else if (!PREFIXES.includes(word)) throw refusePrefix(word, text, drivers);
  }
}

/** `tap:aio:qcow2:/img` is an old form: a format may follow the driver, once. */
function parseDriverTarget(driver: string, text: string, prefixes: Omit<Target, 'driver' | 'image'>): Target {
  const word = WORD.exec(text)?.[1];
  if (word === undefined || !FORMATS.includes(word)) return { driver, image: parsePath(driver, text), ...prefixes };
  if (word !== 'raw') throw refusePrefix(word, text, []);
  return { ...prefixes, driver, image: parsePath(driver, text.slice('raw:'.length)), isRaw: true };
}

function refusePrefix(word: string, text: string, drivers: readonly string[]): FusetapError {
  if (CODED_FORMATS.includes(word)) return refuseFormat(word);
  return new FusetapError('NOT_FOUND', `disk spec: no driver ${quoted(word)}`, {
    hint: `drivers are ${drivers.join(', ')}; for a file of that name: --driver ${DEFAULT_DRIVER} --image ${quoted(text)}`,
  });
}

/** The error for a format that xl knows and fusetap has no driver for. */
export function refuseFormat(format: string): FusetapError {
  return new FusetapError('UNSUPPORTED', `disk spec: there is no driver for the format ${format}`, {
    hint: 'convert the image: qemu-img convert -O raw IMAGE disk.img',
  });
}

function parsePath(driver: string, path: string): string | null {
  if (path !== '') return path;
  if (factsOf(driver)?.needsImage) throw refuse('no image', 'name a file: aio:disk.img, or just disk.img');
  return null;
}
