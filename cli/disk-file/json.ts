/**
 * Reads a disk from JSON: the parts that the control interface takes, or a vbd as `ls --json` prints it. The keys of
 * such a vbd about its bus and its processes are ignored; a key that neither form has is a typing error.
 */
import { FusetapError } from '../../drivers/errors.js';
import { mainImage, parseGraph } from '../../drivers/graph.js';
import { DEFAULT_DRIVER } from '../../drivers/names.js';
import { quoted } from '../../drivers/quote.js';
import type { VbdAbove } from '../../mount/client/finding/above.js';
import { SECTOR_SIZES, type SectorBytes } from '../../mount/client/size.js';
import type { AttachRequest, BackingPolicy } from '../../mount/control/interface.js';
import { isMode, type Mode } from '../../mount/images/mode.js';
import { imagePath } from '../image-path.js';

/** The keys that make a request. */
type Taken = keyof Omit<AttachRequest, 'transport' | 'allowOther' | 'uid' | 'gid' | 'fileMode' | 'detachesWhenUnused'>;

/** The other keys of `ls --json` and `show --json`: where a vbd was, and its state. A new key does not compile here. */
const PASSED_OVER: Readonly<Record<Exclude<keyof VbdAbove | 'holders', Taken>, true>> = {
  ...{ bus: true, slot: true, path: true, size: true, state: true, opens: true, transport: true, keeperPid: true },
  ...{ serverPid: true, restarts: true, version: true, changedOutside: true, writtenOutside: true, broken: true },
  ...{ imageState: true, movedTo: true, deleted: true, mounts: true, loops: true, holders: true },
  detachesWhenUnused: true,
  pausedByUser: true,
  reconnecting: true,
};

type Filters = NonNullable<AttachRequest['filters']>;

/** @throws FusetapError USAGE */
export function requestOfJson(entry: unknown): AttachRequest {
  if (!isRecord(entry)) {
    throw new FusetapError('USAGE', `not an object: ${quoted(JSON.stringify(entry))}`, {
      hint: 'for example {"driver":"aio","image":"/img/a.img","vdev":"xvda","mode":"w"}',
    });
  }
  const fields = new Fields(entry);
  const request: AttachRequest = {
    ...diskOfFields(fields),
    vdev: fields.take('vdev', isStringOrNull) ?? null,
    mode: fields.take('mode', isModeWord) ?? 'w',
  };
  const passthrough = fields.take('passthrough', isPassthrough);
  const filters = fields.take('filters', isFilters);
  const share = fields.take('share', isStringOrNull);
  const raw = fields.take('raw', isBoolean);
  const backing = fields.take('backing', isString);
  const partitions = fields.take('partitions', isPartitions);
  const sectorSize = fields.take('sectorSize', isSectorSize);
  fields.refuseOthers();
  return {
    ...request,
    // in a vbd this is the result of its attach, which may be different this time
    ...(typeof passthrough === 'string' && { passthrough }),
    ...(filters !== undefined && filters.length > 0 && { filters: filters.map(filterOf) }),
    // a vbd without a share name is shared by the identity of its image, which has colons
    ...(share != null && !share.includes(':') && { share }),
    ...(partitions && { partitions: true }),
    ...(sectorSize != null && { sectorSize }),
    ...(raw && { raw }),
    // the bus refuses a word that it does not know
    ...(backing !== undefined && { backing: backing as BackingPolicy }),
  };
}

/** A tree, or a driver with its image. With a tree, `ls --json` prints those of its top too. */
function diskOfFields(fields: Fields): Pick<AttachRequest, 'driver' | 'image' | 'options' | 'disk'> {
  const driver = fields.take('driver', isString);
  const image = fields.take('image', isStringOrNull);
  const options = fields.take('options', isStringRecord);
  const disk = fields.take('disk', isRecord);
  if (disk === undefined) {
    const path = image == null ? null : imagePath(image);
    return { driver: driver ?? DEFAULT_DRIVER, image: path, options: options ?? {} };
  }
  const tree = parseGraph(disk);
  const top = { driver: tree.driver, image: mainImage(tree), options: { ...tree.options } };
  const isOther = Object.entries({ driver, image }).find(
    ([key, value]) => value !== undefined && value !== top[key as 'driver' | 'image'],
  );
  if (isOther === undefined) return { ...top, disk: tree };
  throw new FusetapError('USAGE', `${isOther[0]} and disk contradict each other`, { hint: `omit ${isOther[0]}` });
}

class Fields {
  readonly #object: Record<string, unknown>;
  readonly #taken = new Set<string>();

  constructor(object: Record<string, unknown>) {
    this.#object = object;
  }

  take<Value>(key: Taken, isRight: (value: unknown) => value is Value): Value | undefined {
    this.#taken.add(key);
    const value = this.#object[key];
    if (value === undefined || isRight(value)) return value;
    throw new FusetapError('USAGE', `${key} cannot be ${quoted(JSON.stringify(value))}`, {
      hint: 'docs/control.md has the parts of a disk',
    });
  }

  refuseOthers(): void {
    const other = Object.keys(this.#object).find((key) => !this.#taken.has(key) && !Object.hasOwn(PASSED_OVER, key));
    if (other === undefined) return;
    throw new FusetapError('USAGE', `unknown key of a disk: ${quoted(other)}`, {
      hint: `keys of a disk are ${[...this.#taken].join(', ')}`,
    });
  }
}

const isString = (value: unknown): value is string => typeof value === 'string';
const isBoolean = (value: unknown): value is boolean => typeof value === 'boolean';
const isStringOrNull = (value: unknown): value is string | null => value === null || isString(value);
const isModeWord = (value: unknown): value is Mode => isString(value) && isMode(value);
const isPassthrough = (value: unknown): value is 'auto' | 'on' | 'off' | boolean =>
  typeof value === 'boolean' || value === 'auto' || value === 'on' || value === 'off';
const isPartitions = (value: unknown): value is unknown[] | boolean | null =>
  value === null || typeof value === 'boolean' || Array.isArray(value);
const isSectorSize = (value: unknown): value is SectorBytes | null =>
  value === null || SECTOR_SIZES.some((size) => size === value);
const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isStringRecord = (value: unknown): value is Record<string, string> =>
  isRecord(value) && Object.values(value).every(isString);
const isFilters = (value: unknown): value is (Filters[number] | string)[] =>
  Array.isArray(value) &&
  value.every((filter: { name?: unknown; value?: unknown } | string | null) => {
    return isString(filter) || (isString(filter?.name) && isString(filter.value));
  });

/** A filter of `ls --json` is one string: `offset=512`. */
function filterOf(filter: Filters[number] | string): Filters[number] {
  if (!isString(filter)) return filter;
  const [name = '', ...value] = filter.split('=');
  return { name, value: value.join('=') };
}
