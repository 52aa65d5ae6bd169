/**
 * The answers of the control interface as schemas: for docs/openapi.json, and for tests that hold real answers against
 * them. Written so that each is exactly the type in mount/control/interface.ts: a key that is in one only does not compile.
 */
import * as z from 'zod';
import type { Holder, PlainError } from '../../../drivers/errors.js';
import type {
  BusInfo,
  DetachResult,
  ErrorAnswer,
  MemoryInfo,
  PartitionInfo,
  SaveResult,
  UpgradeResult,
  VbdInfo,
  VbdStats,
  VersionInfo,
} from '../../../mount/control/interface.js';

/** A schema for each key, of no key more or less. */
type ShapeOf<Type> = { [Key in keyof Required<Type>]: z.ZodType<Type[Key]> };

/** Answers of a newer MINOR may have more keys, so clients let others pass; here they must not be forgotten. */
function answer<Type>() {
  return <Shape extends ShapeOf<Type>>(shape: Shape & Record<Exclude<keyof Shape, keyof Type>, never>) =>
    z.strictObject<Shape>(shape);
}

const bytes = z.int().min(0);
const pid = z.int().min(1).nullable().describe('null where there is no such process');
const path = z.string().startsWith('/');
const state = z.enum(['running', 'paused', 'restarting', 'orphaned', 'failed']);
const transport = z.enum(['kernel', 'fuse-native']);
const codes = ['FAILED', 'USAGE', 'NOT_FOUND', 'BUSY', 'DENIED', 'UNSUPPORTED', 'NO_SPACE'] as const;

const holder = answer<Holder>()({
  pid: z.int().exactOptional(),
  command: z.string().exactOptional(),
  loop: z.string().exactOptional().describe('a loop device, as /dev/loop0'),
  mount: z.string().exactOptional().describe('a mountpoint'),
  bus: z.string().exactOptional(),
  vdev: z.string().exactOptional(),
});

const plainError = answer<PlainError>()({
  code: z.enum(codes),
  message: z.string().describe('what failed, and where'),
  hint: z.string().exactOptional().describe('how to fix it'),
  errno: z.int().exactOptional(),
  operation: z.string().exactOptional(),
  path: z.string().exactOptional(),
  offset: z.int().exactOptional(),
  holders: z.array(holder).exactOptional().describe('who stands in the way'),
});

const partition = answer<PartitionInfo>()({
  vdev: z.string(),
  path,
  slot: z.int(),
  offset: bytes.describe('from the start of the disk'),
  size: bytes,
  type: z.string(),
  typeName: z.string().nullable(),
  name: z.string().nullable(),
  opens: z.int(),
});

const vbdShape = {
  bus: z.string(),
  vdev: z.string(),
  slot: z.int(),
  path: path.describe('the file that is the disk'),
  driver: z.string(),
  image: z.string().nullable(),
  mode: z.enum(['r', 'w', 'w!']),
  size: bytes,
  state,
  opens: z.int().min(0).describe('open handles, as far as known'),
  transport,
  passthrough: z.boolean(),
  share: z.string().nullable(),
  filters: z.array(z.string()).exactOptional().describe('as the options say them, the first next to the driver'),
  partitions: z.array(partition).nullable(),
  keeperPid: pid,
  serverPid: pid,
  restarts: z.int().min(0),
  changedOutside: z.boolean(),
  broken: z.string().nullable().exactOptional().describe('why its I/O is EIO since the server was replaced'),
  imageState: z
    .enum(['not-answering', 'gone'])
    .nullable()
    .exactOptional()
    .describe('whether the image can be asked; null where it can'),
};

const vbd = answer<VbdInfo>()(vbdShape);

const bus = answer<BusInfo>()({
  bus: z.string(),
  path: path.describe('the mount'),
  transport,
  allowOther: z.boolean().describe('whether other users may come in'),
  keeperPid: pid,
  serverPid: pid,
  restarts: z.int().min(0),
  state,
  bookkeeping: z
    .string()
    .nullable()
    .exactOptional()
    .describe('why what the bus writes for others may be old; null: all of it is written'),
  interface: z.string(),
  vbds: z.array(vbd),
});

const us = z.number().nullable();
const kind = z.strictObject({
  requests: z.int(),
  bytes,
  errors: z.int(),
  latencyUs: z.strictObject({ p50: us, p99: us, max: us }),
});

const stats = answer<VbdStats>()({
  bus: z.string(),
  vdev: z.string(),
  passthrough: z.boolean(),
  ...{ read: kind, write: kind, flush: kind, discard: kind },
});

const detachedVbd = z.strictObject({
  ...vbdShape,
  error: plainError.exactOptional().describe('writes may be lost'),
  cutOff: z.array(holder).exactOptional().describe('who held it when it was taken away by force'),
});

const ramImage = z.strictObject({
  share: z.string(),
  image: z.string(),
  configuredBytes: bytes,
  residentBytes: bytes,
  holders: z.array(holder),
});

/** By the name that docs/openapi.json has them under. */
export const ANSWERS = {
  Version: answer<VersionInfo>()({ interface: z.string(), fusetap: z.string() }),
  Bus: bus,
  Vbd: vbd,
  AttachedVbd: z.strictObject({
    ...vbdShape,
    notes: z.array(z.string()).exactOptional().describe('remarks for the user'),
  }),
  Stats: stats,
  Detached: answer<DetachResult>()({
    vbds: z.array(detachedVbd),
    ended: z.boolean().describe('the bus ends now'),
  }),
  Saved: answer<SaveResult>()({ path, size: bytes }),
  Memory: answer<MemoryInfo>()({ totalBytes: bytes, usedBytes: bytes, freeBytes: bytes, images: z.array(ramImage) }),
  Upgraded: answer<UpgradeResult>()({ bus, pauseMs: z.number() }),
  Error: answer<ErrorAnswer>()({ error: plainError }),
} as const;

/** What answers are made of. */
export const PARTS = {
  Holder: holder,
  PlainError: plainError,
  Partition: partition,
  Kind: kind,
  RamImage: ramImage,
} as const;

export type AnswerName = keyof typeof ANSWERS;
