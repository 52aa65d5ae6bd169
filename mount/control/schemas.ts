/**
 * The schemas of the values in requests: a driver, an image, a number of seconds, and so on. The rows of routes.ts use
 * them. Descriptions go to docs/openapi.json; messages go to a client that sent a wrong value.
 */
import * as v from 'valibot';
import { mainImage, type NodeSpec, parseGraph } from '../../drivers/graph.js';
import { driverNames } from '../../drivers/names.js';
import { SECTOR_SIZES } from '../../drivers/partitions/partition.js';
import { quoted } from '../../drivers/quote.js';
import { BACKING_POLICIES } from './interface.js';
import { checkShareName } from './share-names.js';

const atLeast = (least: number) => v.minValue<number, number, string>(least, `must be at least ${least}`);
const atMost = (most: number) => v.maxValue<number, number, string>(most, `must be at most ${most}`);

export const oneOf = <const Words extends readonly string[]>(words: Words) =>
  v.picklist(words, ({ input }) => `${shown(input)} is none of ${words.join(', ')}`);

/** A received value in a message. */
function shown(input: unknown): string {
  return typeof input === 'string' ? quoted(input) : String(JSON.stringify(input));
}
export const text = v.string('must be a string');
export const flag = v.boolean('must be true or false');
export const absolutePath = v.pipe(text, v.regex(/^\//, 'must be an absolute path'));

export const driver = v.pipe(
  text,
  v.minLength(1, 'must have at least 1 character'),
  v.maxLength(4096, 'must have at most 4096 characters'),
  v.description(`${driverNames.join(', ')}, or the absolute path of a driver`),
);

/** The keys of DiskWish. */
export const diskWish = {
  driver: v.optional(driver),
  image: v.optional(v.nullable(absolutePath)),
  options: v.optional(v.pipe(v.record(text, text), v.description('options of the driver'))),
  disk: v.optional(
    v.pipe(
      v.record(text, v.unknown(), 'must be an object'),
      v.description(
        'a tree of drivers, in place of driver, image and options: {driver, options, on: {ROLE: TREE | {file}}}',
      ),
    ),
  ),
  backing: v.optional(v.pipe(oneOf(BACKING_POLICIES), v.description('which files an image may name'))),
  share: v.optional(v.pipe(v.nullable(text), v.description('ram only: the name under which its memory is shared'))),
  raw: v.optional(
    v.pipe(flag, v.description('use the bytes of the image as they are, even if it looks like another format')),
  ),
};

/** The keys of a request that tell its disk, as they were received. */
export interface AskedDisk {
  readonly driver?: string | undefined;
  readonly image?: string | null | undefined;
  readonly options?: Record<string, string> | undefined;
  readonly disk?: Record<string, unknown> | undefined;
}

/** What is known of the disk after the check. */
export interface CheckedDisk {
  readonly driver: string;
  readonly image: string | null;
  readonly options: Record<string, string>;
  readonly disk?: NodeSpec;
}

/** What is wrong with a key of a request. */
function issueAt(request: object, key: string, message: string): v.RawTransformIssueInfo<unknown> {
  const input = Object.fromEntries(Object.entries(request)) as Record<string, unknown>;
  return { message, path: [{ type: 'object', origin: 'value', input, key, value: input[key] }] };
}

/** Checks the keys that tell the disk: a tree, or a driver with its image. */
export const asDiskWish = <Request extends AskedDisk>() =>
  v.rawTransform<Request, Omit<Request, keyof AskedDisk> & CheckedDisk>(({ dataset, addIssue, NEVER }) => {
    const { driver: name, image, options, disk, ...others } = dataset.value;
    const refuse = (key: keyof AskedDisk, message: string): never => {
      addIssue(issueAt(dataset.value, key, message));
      return NEVER;
    };
    if (disk === undefined) {
      if (name === undefined) return refuse('driver', 'is missing');
      if (image === undefined) return refuse('image', 'is missing');
      return { ...others, driver: name, image, options: options ?? {} };
    }
    for (const key of ['driver', 'image', 'options'] as const) {
      if (dataset.value[key] !== undefined) return refuse(key, 'is a part of disk here');
    }
    const graph = parseGraph(disk);
    return { ...others, driver: graph.driver, image: mainImage(graph), options: { ...graph.options }, disk: graph };
  });

/** The keys of BusWishes. */
export const busWishes = {
  transport: v.optional(oneOf(['kernel', 'fuse-native'])),
  allowOther: v.optional(
    v.pipe(flag, v.description('let other users use the bus; a bus that runs without this refuses')),
  ),
};

/** The sector size of a partition table. */
export const sectorSize = v.picklist(SECTOR_SIZES, `must be one of ${SECTOR_SIZES.join(', ')}`);

/** The number of a user or group. */
export const id = v.pipe(
  v.number('must be an integer'),
  v.integer('must be an integer'),
  atLeast(0),
  atMost(0xffff_fffe),
);

export const fileMode = v.pipe(text, v.regex(/^0?[0-7]{3}$/, 'must be three octal digits, for example 0640'));

const MOST_SECONDS = 1e6;
export const seconds = v.pipe(v.number('must be a number'), atLeast(0), atMost(MOST_SECONDS));
/** The same in a query. */
export const secondsText = v.pipe(
  text,
  v.regex(/^\d+(?:\.\d+)?$/, 'must be a number'),
  v.transform(Number),
  atMost(MOST_SECONDS),
);

/** A place in a disk, in a query. */
export const offsetText = v.pipe(
  text,
  v.regex(/^\d{1,16}$/, 'must be a number of bytes'),
  v.transform(Number),
  atMost(Number.MAX_SAFE_INTEGER),
);

/** A copy is either a file or a disk. */
export const asSaveRequest = <Request extends { readonly path?: unknown; readonly to?: unknown }>() =>
  v.rawTransform<Request, Request>(({ dataset, addIssue, NEVER }) => {
    const { path, to } = dataset.value;
    if ((path === undefined) !== (to === undefined)) return dataset.value;
    addIssue(issueAt(dataset.value, 'path', 'or to: give one of them'));
    return NEVER;
  });

/** Checks that `share`, if the request has it, is a name. This check comes last and has its own message. */
export const sharesByName = <Request extends { readonly share?: string | null | undefined }>() =>
  v.transform((request: Request): Request => {
    if (typeof request.share === 'string') checkShareName(request.share);
    return request;
  });
