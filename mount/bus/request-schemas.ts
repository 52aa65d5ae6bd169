/**
 * What the requests of the control interface have to be, checked where they arrive. docs/openapi.json is made from
 * these, and docs/control.md says them in words.
 */
import type { AttachRequest, BusWishes, SaveRequest, SwapRequest } from './interface.js';
import * as z from './schema.js';

const driver = z.string().min(1).max(4096).describe('aio, ram, sync, or the absolute path of a driver');
const image = z.string().regex(/^\//, 'must be an absolute path').nullable();
const options = z.record(z.string()).default({}).describe('options of the driver');
const share = z.string().nullable().optional().describe('ram: the name that its memory is shared under');

const busWishes = {
  transport: z.oneOf(['kernel', 'fuse-native']).optional(),
  allowOther: z.boolean().optional().describe('other users may come in; of a bus that is begun for it'),
};

const id = z.int().min(0).max(0xffff_fffe).optional();

export const attachRequest = z.object({
  driver,
  image,
  vdev: z.string().nullable().default(null).describe('null: the first free xvd*'),
  mode: z.oneOf(['r', 'w', 'w!']).default('w'),
  ...busWishes,
  passthrough: z.oneOf(['auto', 'on', 'off']).default('auto'),
  options,
  share,
  filters: z
    .array(z.object({ name: z.string(), value: z.string().default('') }))
    .optional()
    .describe('the first is next to the driver'),
  partitions: z.boolean().optional().describe('its partitions too, as files beside it'),
  uid: id.describe('whose the file is; missing: his who runs the bus'),
  gid: id,
  fileMode: z
    .string()
    .regex(/^0?[0-7]{3}$/, 'must be three octal digits, as 0640')
    .optional()
    .describe('permission bits of the file, octal; missing: 0600'),
}) satisfies z.Schema<AttachRequest>;

export const saveRequest = z.object({
  path: z.string().regex(/^\//, 'must be an absolute path'),
  force: z.boolean().default(false).describe('it may take the place of a file'),
}) satisfies z.Schema<SaveRequest>;

export const swapRequest = z.object({ driver, image, share, options }) satisfies z.Schema<SwapRequest>;

export const startRequest = z.object(busWishes) satisfies z.Schema<BusWishes>;

export const stopRequest = z.object({
  force: z.boolean().default(false).describe('cut off who holds a vbd'),
  wait: z.number().min(0).max(1e6).optional().describe('seconds to wait first for those who hold one; missing: none'),
});

/** the copy that a vbd is held for, by another keeper; missing: the user's hold */
export const holdQuery = z.object(
  {
    copy: z
      .string()
      .regex(/^\d+:\d+:\d+$/, 'must be the name of a copy')
      .optional(),
  },
  { ignoresOthers: true },
);

export const detachQuery = z.object({
  force: z.oneOf(['0', '1']).default('0').describe('1: cut off who holds it'),
  wait: z.numberText().min(0).max(1e6).default(0).describe('seconds to wait for those who hold it'),
});
