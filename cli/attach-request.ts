/**
 * Translates the arguments of a command to a request of the control interface, which takes parts, never spec strings.
 * Only the arguments are checked here; the keeper checks whether the image exists and can be a disk.
 */
import { defined } from '../drivers/defined.js';
import { FusetapError } from '../drivers/errors.js';
import { DEFAULT_DRIVER } from '../drivers/names.js';
import { asSnapshot } from '../mount/client/disk-wish.js';
import type { SectorBytes } from '../mount/client/size.js';
import type { AttachRequest, BackingPolicy, DiskWish, TransportName } from '../mount/control/interface.js';
import type { Mode } from '../mount/images/mode.js';
import { combineWords, type DiskSpec } from './disk-spec/index.js';
import { diskOf, isRemote, type OptionWord, remoteDisk } from './disk-tree.js';
import { imagePath } from './image-path.js';
import { typedSpec } from './typed-spec.js';

/** The options of `attach` that make the request. */
export interface AttachWords {
  vdev?: string;
  mode?: Mode;
  readOnly?: boolean;
  driver?: string;
  image?: string;
  passthrough?: 'auto' | 'on' | 'off';
  transport?: TransportName;
  /** KEY=VALUE or ROLE/KEY=VALUE each */
  option?: string[];
  offset?: string;
  sizelimit?: string;
  /** NAME=VALUE each, or NAME */
  filter?: string[];
  share?: string;
  private?: boolean;
  raw?: boolean;
  snapshot?: boolean;
  backing?: BackingPolicy;
  partitions?: boolean;
  sectorSize?: SectorBytes;
  allowOther?: boolean;
  uid?: number;
  gid?: number;
  fileMode?: string;
}

/** A disk to attach. */
export interface Wanted {
  request: AttachRequest;
  /** what was accepted but has no effect here; printed with -v */
  notes: string[];
}

/** Whether options name the image, so that there is no SPEC. */
export function isGivenApart({ driver, image }: AttachWords): boolean {
  return driver !== undefined || image !== undefined;
}

/**
 * The request for the arguments `SPEC [VDEV] [MODE]`.
 * @param words the SPEC is not used if options name the image
 * @throws FusetapError USAGE
 */
export function attachRequest(words: readonly (string | undefined)[], options: AttachWords = {}): Wanted {
  const [spec, ...place] = words;
  if (spec === undefined && !isGivenApart(options)) {
    throw new FusetapError('USAGE', 'nothing to attach', { hint: 'give a SPEC, or --image' });
  }
  const [vdev = options.vdev, mode = options.mode] = place;
  const given = isGivenApart(options)
    ? combineWords(specOfOptions(options), vdev, mode)
    : typedSpec(spec ?? '', vdev, mode);
  const whole = combineWords(given, options.vdev, options.mode);
  const filters = filtersOf(options);
  const { passthrough, share, raw, backing, partitions, sectorSize } = options;
  const { transport, allowOther, uid, gid, fileMode } = options;
  const request = {
    ...namedDisk(whole, optionWords(options.option ?? [])),
    vdev: whole.vdev,
    mode: chooseMode(whole.mode, options),
    ...(filters.length > 0 && { filters }),
    // only the keys that were given: a bus of an older version does not know all of them
    ...defined({ passthrough, share, raw, backing, partitions, sectorSize, transport, allowOther, uid, gid, fileMode }),
  };
  return { request: options.snapshot ? asSnapshot(request) : request, notes: whole.notes };
}

/**
 * The disk of a SPEC that is not attached, so it has no vdev.
 * @param why what has no place, for the error @throws FusetapError USAGE, also if the SPEC has more than drivers and image
 */
export function placelessDisk(
  spec: string | undefined,
  options: AttachWords,
  why: { readonly message: string; readonly hint: string },
): { disk: DiskWish; notes: string[] } {
  const { request, notes } = attachRequest(spec === undefined ? [] : [spec], options);
  const { vdev, mode: _, ...disk } = request;
  if (vdev === null) return { disk, notes };
  throw new FusetapError('USAGE', `${why.message}: ${spec} names ${vdev}`, { hint: why.hint });
}

function namedDisk(
  { driver, below = [], image, belowDev }: Pick<DiskSpec, 'driver' | 'below' | 'image' | 'belowDev'>,
  options: readonly OptionWord[],
): Pick<AttachRequest, 'driver' | 'image' | 'options' | 'disk'> {
  const drivers = [driver, ...below];
  if (image !== null && isRemote(drivers)) return remoteDisk(drivers, image, options);
  return diskOf(drivers, image === null ? null : imagePath(image, belowDev), options);
}

function specOfOptions({ driver = DEFAULT_DRIVER, image }: AttachWords): DiskSpec {
  if (driver === '' || image === '') {
    const option = driver === '' ? '--driver' : '--image';
    throw new FusetapError('USAGE', `${option} is empty`, { hint: `give ${option} a value` });
  }
  return { driver, image: image ?? null, vdev: null, mode: null, notes: [] };
}

/** In the order in which they apply: the offset, the limit, then the filters as given. */
function filtersOf({ offset, sizelimit, filter = [] }: AttachWords): NonNullable<AttachRequest['filters']> {
  const narrowing = Object.entries({ offset, sizelimit }).flatMap(([name, value]) =>
    value === undefined ? [] : [{ name, value }],
  );
  return [...narrowing, ...filter.map((word) => splitPair(word, '--filter', 'delay=20'))];
}

/** @throws FusetapError USAGE for words that are not KEY=VALUE, and for a KEY that is given twice */
function optionWords(words: readonly string[]): OptionWord[] {
  const pairs = words.map((word) => {
    if (!word.includes('=')) {
      throw new FusetapError('USAGE', `--option ${word} has no value`, { hint: 'the form is KEY=VALUE' });
    }
    return splitPair(word, '--option', 'url=http://host/disk.img');
  });
  const twice = pairs.find(({ name }, i) => pairs.findIndex((pair) => pair.name === name) < i);
  if (twice !== undefined) {
    throw new FusetapError('USAGE', `--option ${twice.name} is given twice`, { hint: 'give it once' });
  }
  return pairs.map(({ name, value }) => {
    const slash = name.lastIndexOf('/');
    const [node, key] = [name.slice(0, Math.max(slash, 0)), name.slice(slash + 1)];
    if (key !== '' && (slash < 0 || node !== '')) return { node, name: key, value };
    throw new FusetapError('USAGE', `--option ${name} has no name of ${key === '' ? 'an option' : 'a driver'}`, {
      hint: 'the form is KEY=VALUE, or ROLE/KEY=VALUE for a driver below the first',
    });
  });
}

/** Splits at the first `=`: a value may contain more of them. */
function splitPair(word: string, option: string, example: string): { name: string; value: string } {
  const [name = '', ...rest] = word.split('=');
  if (name !== '') return { name, value: rest.join('=') };
  throw new FusetapError('USAGE', `${option} ${word} has no name`, { hint: `for example ${option} ${example}` });
}

function chooseMode(mode: Mode | null, { readOnly }: AttachWords): Mode {
  if (!readOnly) return mode ?? 'w';
  if (mode === null || mode === 'r') return 'r';
  throw new FusetapError('USAGE', `--read-only and mode ${mode} contradict each other`, { hint: 'give one of them' });
}
