/**
 * The target of a disk spec: drivers and path, or the URI of a disk on a network.
 *
 *     [tap:|tap2:|tapdisk:|ioemu:|file:|phy:|raw:]…  [DRIVER:]…  [raw:]  PATH
 *     [tap:|…]…  nbd://HOST/EXPORT
 *
 * Drivers stack from the left: in `ram:vhd:PATH`, ram takes the disk that vhd shows. Everything after the last DRIVER: is
 * the path, with its colons; so is everything after a driver that takes a file and no disk. The first word before a
 * colon that could be a driver's name is never read as part of a path: a typing error must not open a file.
 */
import { FusetapError } from '../../drivers/errors.js';
import { DEEPEST } from '../../drivers/graph.js';
import { DEFAULT_DRIVER, factsOf } from '../../drivers/names.js';
import { quoted } from '../../drivers/quote.js';
import { canonicalUri, driverOfUri, insteadOfFormat } from '../../drivers/remote-uris.js';
import { refuse } from './disk-spec.js';
import { CODED_FORMATS, FORMATS, PREFIXES } from './words.js';

export interface Target {
  driver: string;
  /** the drivers below it, the next one first */
  below: readonly string[];
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
    const remote = driverOfUri(rest);
    if (remote !== null) return remoteTarget([remote], rest, drivers);
    const word = WORD.exec(rest)?.[1];
    if (word === undefined)
      return { driver: unnamed, below: [], image: parsePath([unnamed], rest), isRaw, isDevice, hasDriver: false };
    rest = rest.slice(word.length + 1);
    if (drivers.includes(word)) return parseStack(word, rest, drivers, { isRaw, isDevice });
    if (word === 'raw') isRaw = true;
    else if (word === 'phy') isDevice = true;
    else if (!PREFIXES.includes(word)) throw refusePrefix(word, text, drivers);
  }
}

/** What follows the first driver. `tap:aio:raw:/img` is an old form: the format raw may follow a driver, once. */
function parseStack(
  driver: string,
  text: string,
  drivers: readonly string[],
  prefixes: Pick<Target, 'isRaw' | 'isDevice'>,
): Target {
  const stack = [driver];
  for (let rest = text; ; ) {
    const remote = driverOfUri(rest);
    if (remote !== null && factsOf(remote)?.onlyReads)
      return { ...prefixes, ...remoteTarget([...stack, remote], rest, drivers) };
    if (remote !== null) throw refuseRemote(stack, rest);
    const word = WORD.exec(rest)?.[1] ?? '';
    const behind = rest.slice(word.length + 1);
    const found = { ...prefixes, driver, below: stack.slice(1), hasDriver: true };
    if (word === 'raw') return { ...found, image: parsePath(stack, behind), isRaw: true };
    const bottom = stack.at(-1) ?? driver;
    const isDriver = drivers.includes(word);
    if (isDriver && takesDisk(bottom)) stack.push(word);
    else if (isDriver && FORMATS.includes(word)) throw refuseDisk(bottom, word, behind);
    else if (FORMATS.includes(word)) throw refusePrefix(word, text, []);
    else return { ...found, image: parsePath(stack, rest) };
    if (stack.length > DEEPEST) throw refuse(`it has more than ${DEEPEST} drivers`, 'name fewer of them');
    rest = behind;
  }
}

/** A URI names its driver, and nothing can follow it. @param stack the drivers above it, and its own */
function remoteTarget(stack: readonly string[], text: string, drivers: readonly string[]): Target {
  const [driver = '', ...below] = stack;
  const remote = stack.at(-1) ?? '';
  if (!drivers.includes(remote)) throw refusePrefix(remote, text, drivers);
  return { driver, below, image: canonicalUri(text), isRaw: false, isDevice: false, hasDriver: true };
}

function refuseRemote(stack: readonly string[], uri: string): FusetapError {
  return new FusetapError('UNSUPPORTED', `disk spec: ${stack.join(':')} cannot be over ${quoted(uri)}`, {
    hint: insteadOfFormat(uri),
  });
}

/** Whether a spec may name a driver after this one. */
export function takesDisk(driver: string): boolean {
  return factsOf(driver)?.takesDisk === true;
}

function refuseDisk(driver: string, format: string, path: string): FusetapError {
  const hint = `write ${format}:${quoted(path)}; for a file of that name: ${driver}:raw:${format}:…`;
  return refuse(`driver ${driver} takes a file, not the disk of ${format}`, hint);
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

/** @param stack the drivers, the top first */
function parsePath(stack: readonly string[], path: string): string | null {
  if (path !== '') return path;
  const isNeeded = stack.length > 1 || factsOf(stack[0] ?? '')?.needsImage;
  if (isNeeded) throw refuse('no image', 'name a file: aio:disk.img, or just disk.img');
  return null;
}
