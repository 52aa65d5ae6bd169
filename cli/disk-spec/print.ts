/**
 * Prints a disk spec in the shortest form that has all of its parts. Parsing the text gives the same parts, without
 * notes.
 */
import { DEFAULT_DRIVER, driverNames, factsOf } from '../../drivers/names.js';
import { quoted } from '../../drivers/quote.js';
import { driverOfUri } from '../../drivers/remote-uris.js';
import { type DiskSpec, hasControlCharacter, refuse } from './disk-spec.js';
import { takesDisk } from './target.js';
import { CODED_FORMATS, FORMATS } from './words.js';

/**
 * xm's form if it is enough, `ram:golden.img,xvdb,w`, else xl's.
 *
 * @throws FusetapError USAGE for parts that no spec can have, such as a mode without a vdev
 */
export function printSpec(spec: DiskSpec): string {
  const needsKeys = spec.devtype ?? spec.script ?? spec.discard;
  const isDeviceOfFormat = spec.belowDev !== undefined && spec.driver !== DEFAULT_DRIVER;
  if (needsKeys !== undefined || spec.belowDev === 'if-no-file' || isDeviceOfFormat || spec.image?.includes(','))
    return printXlSpec(spec);
  refuseUnprintable(spec);
  if (spec.mode !== null && spec.vdev === null) throw refuse('a mode without a vdev has no form', 'name the vdev too');
  return [printTarget(spec), spec.vdev, spec.mode].filter((field) => field !== null).join(',');
}

/**
 * xl's form with every key, `format=raw, vdev=xvda, access=rw, target=/img/d`: a line that xl itself reads too, for an
 * absolute image of the default driver or of a format of xl, and a mode other than w!.
 *
 * @throws FusetapError USAGE for parts that xl's form cannot have, such as no vdev
 */
export function printXlSpec(spec: DiskSpec): string {
  refuseUnprintable(spec);
  if (spec.vdev === null) throw refuse("xl's form needs a vdev", 'name one');
  const isAbsolute = spec.image?.startsWith('/') === true;
  const isOfFormat = CODED_FORMATS.includes(spec.driver) && spec.below === undefined;
  const hasFormat = isOfFormat && (isAbsolute || spec.belowDev !== undefined);
  const fields = [`format=${hasFormat ? spec.driver : 'raw'}`, `vdev=${spec.vdev}`];
  if (spec.mode !== null) fields.push(`access=${spec.mode === 'w' ? 'rw' : spec.mode}`);
  if (spec.devtype !== undefined) fields.push(`devtype=${spec.devtype}`);
  if (spec.script !== undefined) fields.push(`script=${spec.script}`);
  if (spec.discard !== undefined) fields.push(spec.discard ? 'discard' : 'no-discard');
  const isPlainPath = isAbsolute && (spec.driver === DEFAULT_DRIVER || hasFormat);
  fields.push(`target=${isPlainPath ? spec.image : printTarget(spec)}`);
  return fields.join(', ');
}

function printTarget({ driver, below = [], image, belowDev }: DiskSpec): string {
  // with a driver it would not be the name of a device
  if (belowDev !== undefined && image !== null) return belowDev === 'always' ? `phy:${image}` : image;
  const stack = [driver, ...below];
  if (image !== null && factsOf(stack.at(-1) ?? '')?.isRemote) return [...stack.slice(0, -1), image].join(':');
  // a path that begins like a format or driver would be read as one
  const words = takesDisk(stack.at(-1) ?? driver) ? [...FORMATS, ...driverNames] : FORMATS;
  const isLikeOne =
    image !== null && (driverOfUri(image) !== null || words.some((word) => image.startsWith(`${word}:`)));
  return [...stack, ...(isLikeOne ? ['raw'] : []), image ?? ''].join(':');
}

function refuseUnprintable({ driver, below = [], image, script }: DiskSpec): void {
  const other = [driver, ...below].find((name) => !/^[a-z][a-z0-9-]*$/.test(name));
  if (other !== undefined) {
    throw refuse(`the driver ${quoted(other)} cannot be named in a spec`, 'give it with --driver and --image');
  }
  const needsImage = below.length > 0 || factsOf(driver)?.needsImage;
  if (image === null ? needsImage : image === '' || hasControlCharacter(image)) {
    throw refuse(`the image ${quoted(image ?? '')} cannot be named in a spec`, 'rename the image, or link to it');
  }
  if (script !== undefined && !/^[^\p{Cc}\s,](?:[^\p{Cc},]*[^\p{Cc}\s,])?$/u.test(script)) {
    throw refuse(`the script ${quoted(script)} cannot be named in a spec`, 'use a name without commas');
  }
}
