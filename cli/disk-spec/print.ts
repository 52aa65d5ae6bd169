/**
 * Prints a disk spec in the shortest form that has all of its parts. Parsing the text gives the same parts, without
 * notes.
 */
import { DEFAULT_DRIVER, factsOf } from '../../drivers/names.js';
import { quoted } from '../../drivers/quote.js';
import { type DiskSpec, hasControlCharacter, refuse } from './disk-spec.js';
import { FORMATS } from './words.js';

/**
 * xm's form if it is enough, `ram:golden.img,xvdb,w`, else xl's.
 *
 * @throws FusetapError USAGE for parts that no spec can have, such as a mode without a vdev
 */
export function printSpec(spec: DiskSpec): string {
  const needsKeys = spec.devtype ?? spec.script ?? spec.discard;
  if (needsKeys !== undefined || spec.belowDev === 'if-no-file' || (spec.image ?? '').includes(','))
    return printXlSpec(spec);
  refuseUnprintable(spec);
  if (spec.mode !== null && spec.vdev === null) throw refuse('a mode without a vdev has no form', 'name the vdev too');
  return [printTarget(spec), spec.vdev, spec.mode].filter((field) => field !== null).join(',');
}

/**
 * xl's form with every key, `format=raw, vdev=xvda, access=rw, target=/img/d`: a line that xl itself reads too, for an
 * absolute image of the default driver and a mode other than w!.
 *
 * @throws FusetapError USAGE for parts that xl's form cannot have, such as no vdev
 */
export function printXlSpec(spec: DiskSpec): string {
  refuseUnprintable(spec);
  if (spec.vdev === null) throw refuse("xl's form needs a vdev", 'name one');
  const fields = ['format=raw', `vdev=${spec.vdev}`];
  if (spec.mode !== null) fields.push(`access=${spec.mode === 'w' ? 'rw' : spec.mode}`);
  if (spec.devtype !== undefined) fields.push(`devtype=${spec.devtype}`);
  if (spec.script !== undefined) fields.push(`script=${spec.script}`);
  if (spec.discard !== undefined) fields.push(spec.discard ? 'discard' : 'no-discard');
  const isPlainPath = spec.driver === DEFAULT_DRIVER && spec.image?.startsWith('/') === true;
  fields.push(`target=${isPlainPath ? spec.image : printTarget(spec)}`);
  return fields.join(', ');
}

function printTarget({ driver, image, belowDev }: DiskSpec): string {
  // with a driver it would not be the name of a device
  if (belowDev !== undefined && image !== null) return belowDev === 'always' ? `phy:${image}` : image;
  // a path that begins like a format would be read as one
  const looksLikeFormat = image !== null && FORMATS.some((format) => image.startsWith(`${format}:`));
  return `${driver}:${looksLikeFormat ? 'raw:' : ''}${image ?? ''}`;
}

function refuseUnprintable({ driver, image, script }: DiskSpec): void {
  if (!/^[a-z][a-z0-9-]*$/.test(driver)) {
    throw refuse(`the driver ${quoted(driver)} cannot be named in a spec`, 'give it with --driver and --image');
  }
  if (image === null ? factsOf(driver)?.needsImage : image === '' || hasControlCharacter(image)) {
    throw refuse(`the image ${quoted(image ?? '')} cannot be named in a spec`, 'rename the image, or link to it');
  }
  if (script !== undefined && !/^[^\p{Cc}\s,](?:[^\p{Cc},]*[^\p{Cc}\s,])?$/u.test(script)) {
    throw refuse(`the script ${quoted(script)} cannot be named in a spec`, 'use a name without commas');
  }
}
