/**
 * What the requests of the control interface have to be, checked when they arrive. docs/openapi.json is made from these
 * schemas, and docs/control.md describes them in words.
 */
import * as v from 'valibot';
import { driverNames } from '../../drivers/names.js';
import type { AttachRequest, BusWishes, SaveRequest, SwapRequest } from './interface.js';

const atLeast = (least: number) => v.minValue<number, number, string>(least, `must be at least ${least}`);
const atMost = (most: number) => v.maxValue<number, number, string>(most, `must be at most ${most}`);
const oneOf = <const Words extends readonly string[]>(words: Words) =>
  v.picklist(words, `must be one of ${words.join(', ')}`);
const text = v.string('must be a string');
const flag = v.boolean('must be true or false');
const absolutePath = v.pipe(text, v.regex(/^\//, 'must be an absolute path'));
const seconds = v.pipe(v.number('must be a number'), atLeast(0), atMost(1e6));

const driver = v.pipe(
  text,
  v.minLength(1, 'must have at least 1 character'),
  v.maxLength(4096, 'must have at most 4096 characters'),
  v.description(`${driverNames.join(', ')}, or the absolute path of a driver`),
);
const image = v.nullable(absolutePath);
const options = v.optional(v.pipe(v.record(text, text), v.description('options of the driver')), {});
const share = v.optional(v.pipe(v.nullable(text), v.description('ram: the name that its memory is shared under')));

const busWishes = {
  transport: v.optional(oneOf(['kernel', 'fuse-native'])),
  allowOther: v.optional(v.pipe(flag, v.description('let other users use the bus, if this request begins it'))),
};

const id = v.pipe(v.number('must be an integer'), v.integer('must be an integer'), atLeast(0), atMost(0xffff_fffe));

export const attachRequest = v.strictObject({
  driver,
  image,
  vdev: v.optional(v.pipe(v.nullable(text), v.description('null: the first free xvd*')), null),
  mode: v.optional(oneOf(['r', 'w', 'w!']), 'w'),
  ...busWishes,
  passthrough: v.optional(oneOf(['auto', 'on', 'off']), 'auto'),
  options,
  share,
  filters: v.optional(
    v.pipe(
      v.array(v.strictObject({ name: text, value: v.optional(text, '') })),
      v.description('the first is next to the driver'),
    ),
  ),
  partitions: v.optional(v.pipe(flag, v.description('its partitions too, as files beside it'))),
  uid: v.optional(v.pipe(id, v.description('owner of the file; default: the owner of the bus'))),
  gid: v.optional(id),
  fileMode: v.optional(
    v.pipe(
      text,
      v.regex(/^0?[0-7]{3}$/, 'must be three octal digits, as 0640'),
      v.description('permission bits of the file, octal; default: 0600'),
    ),
  ),
}) satisfies v.GenericSchema<unknown, AttachRequest>;

export const saveRequest = v.strictObject({
  path: absolutePath,
  force: v.optional(v.pipe(flag, v.description('it may replace a file')), false),
}) satisfies v.GenericSchema<unknown, SaveRequest>;

export const swapRequest = v.strictObject({ driver, image, share, options }) satisfies v.GenericSchema<
  unknown,
  SwapRequest
>;

export const startRequest = v.strictObject(busWishes) satisfies v.GenericSchema<unknown, BusWishes>;

export const stopRequest = v.strictObject({
  force: v.optional(v.pipe(flag, v.description('cut off the programs that hold a vbd')), false),
  wait: v.optional(v.pipe(seconds, v.description('seconds to wait first for those who hold a vbd; default: none'))),
});

/** the copy that another keeper has the vbd paused for; missing: the user's pause */
export const holdQuery = v.object({
  copy: v.optional(v.pipe(text, v.regex(/^\d+:\d+:\d+$/, 'must be the name of a copy'))),
});

/** A number in a query. */
const secondsText = v.pipe(text, v.regex(/^\d+(?:\.\d+)?$/, 'must be a number'), v.transform(Number), atMost(1e6));

export const detachQuery = v.strictObject({
  force: v.optional(v.pipe(oneOf(['0', '1']), v.description('1: cut off the programs that hold it')), '0'),
  wait: v.optional(secondsText, '0'),
});
