/**
 * The answers of the control interface, as schemas: for docs/openapi.json, and for tests that check real answers. Each
 * schema has exactly the keys of its type in interface.ts; a key that is only in one of them does not compile. The bus
 * itself does not check its answers.
 */
import * as v from 'valibot';
import type { Change } from '../../drivers/driver.js';
import type { Holder, PlainError } from '../../drivers/errors.js';
import type { NodeSpec } from '../../drivers/graph.js';
import type { MapExtent } from '../../drivers/map/map-extents.js';
import { MODES } from '../images/mode.js';
import type { HistogramBucket, KindCounters, KindStats } from '../ledger/counters.js';
import type {
  AttachResult,
  BusCounters,
  BusInfo,
  BusVersion,
  ChangesResult,
  CommitResult,
  DetachedVbd,
  DetachResult,
  ErrorAnswer,
  FileNames,
  MapResult,
  MemoryInfo,
  PartitionInfo,
  ProcessCounters,
  RamImageInfo,
  Reconnecting,
  SaveResult,
  UpgradeResult,
  VbdCounters,
  VbdInfo,
  VbdStats,
  VersionInfo,
} from './interface.js';
import { BACKING_POLICIES } from './interface.js';

/** A schema for each key. */
type EntriesOf<Type> = { [Key in keyof Required<Type>]: v.GenericSchema<unknown, Type[Key]> };

/**
 * Clients ignore unknown keys, because a newer MINOR may add some. This schema is strict, so that no key is forgotten.
 */
function answer<Type>() {
  return <Entries extends EntriesOf<Type> & v.ObjectEntries>(
    entries: Entries & Record<Exclude<keyof Entries, keyof Type>, never>,
  ) => v.strictObject<Entries>(entries);
}

const text = v.string();
const flag = v.boolean();
const integer = v.pipe(v.number(), v.safeInteger());
/** of bytes, of handles, of times */
const count = v.pipe(integer, v.minValue(0));
const path = v.pipe(text, v.regex(/^\//));
const pid = v.pipe(v.nullable(v.pipe(integer, v.minValue(1))), v.description('null if there is no such process'));
const state = v.picklist(['running', 'paused', 'reconnecting', 'restarting', 'orphaned', 'failed']);
const transport = v.picklist(['kernel', 'fuse-native']);

const holder = answer<Holder>()({
  pid: v.exactOptional(integer),
  command: v.exactOptional(text),
  loop: v.exactOptional(v.pipe(text, v.description('a loop device, for example /dev/loop0'))),
  mount: v.exactOptional(v.pipe(text, v.description('a mount point'))),
  bus: v.exactOptional(text),
  vdev: v.exactOptional(text),
});

const plainError = answer<PlainError>()({
  code: v.picklist(['FAILED', 'USAGE', 'NOT_FOUND', 'BUSY', 'DENIED', 'UNSUPPORTED', 'NO_SPACE']),
  message: v.pipe(text, v.description('what failed, and where')),
  hint: v.exactOptional(v.pipe(text, v.description('how to fix it'))),
  errno: v.exactOptional(integer),
  operation: v.exactOptional(text),
  path: v.exactOptional(text),
  offset: v.exactOptional(integer),
  holders: v.exactOptional(
    v.pipe(v.array(holder), v.description('the programs, loop devices, mounts and vbds that use it')),
  ),
});

const partition = answer<PartitionInfo>()({
  vdev: text,
  path,
  slot: integer,
  offset: v.pipe(count, v.description('from the start of the disk')),
  size: count,
  type: text,
  typeName: v.nullable(text),
  name: v.nullable(text),
  mode: v.exactOptional(
    v.pipe(v.picklist(['r', 'w', 'w!']), v.description('r if it may only be read, else the mode of its disk')),
  ),
  opens: integer,
});

const versionText = v.nullable(text);
const busVersion = answer<BusVersion>()({ keeper: versionText, server: versionText });

export const vbd = answer<VbdInfo>()({
  bus: text,
  vdev: text,
  slot: integer,
  path: v.pipe(path, v.description('the file of the vbd')),
  driver: text,
  image: v.nullable(text),
  mode: v.picklist(MODES),
  size: count,
  state,
  opens: v.pipe(count, v.description('open handles, as far as known')),
  transport,
  passthrough: flag,
  share: v.nullable(text),
  filters: v.exactOptional(
    v.pipe(v.array(text), v.description('NAME=VALUE, as in --filter; the first is next to the driver')),
  ),
  options: v.exactOptional(v.pipe(v.record(text, text), v.description('the options of its driver'))),
  disk: v.exactOptional(
    v.pipe(
      // the tree is recursive, which parseGraph checks
      v.record(text, v.unknown()) as unknown as v.GenericSchema<unknown, NodeSpec>,
      v.description('the tree of its disk, if that is more than the driver over the image'),
    ),
  ),
  backing: v.exactOptional(v.pipe(v.picklist(BACKING_POLICIES), v.description('which files its images may name'))),
  raw: v.exactOptional(v.pipe(flag, v.description('the image is raw whatever it looks like'))),
  partitions: v.nullable(v.array(partition)),
  sectorSize: v.exactOptional(
    v.pipe(v.nullable(count), v.description('the sectors in which its partition table counts; null: the table tells')),
  ),
  keeperPid: pid,
  serverPid: pid,
  restarts: count,
  changedOutside: flag,
  broken: v.exactOptional(
    v.pipe(v.nullable(text), v.description('why its I/O fails with EIO since the server was replaced')),
  ),
  imageState: v.exactOptional(
    v.pipe(
      v.nullable(v.picklist(['not-answering', 'gone'])),
      v.description('not-answering: its file system does not answer; gone: the image is lost; null: it is fine'),
    ),
  ),
  writtenOutside: v.exactOptional(
    v.pipe(flag, v.description('a part of changedOutside: its bytes or its size were changed, not only its path')),
  ),
  movedTo: v.exactOptional(v.pipe(v.nullable(text), v.description('where the image is now, if it was moved'))),
  deleted: v.exactOptional(v.pipe(flag, v.description('the image has no name any more: the detach loses its data'))),
  version: v.exactOptional(busVersion),
  detachesWhenUnused: v.exactOptional(
    v.pipe(flag, v.description('whether it is detached when nobody uses it any more')),
  ),
  reconnecting: v.exactOptional(
    v.pipe(
      v.nullable(answer<Reconnecting>()({ since: text, reason: text })),
      v.description('its disk is on a network and cannot be reached: since when, and why; null: it can'),
    ),
  ),
  pausedByUser: v.exactOptional(
    v.pipe(flag, v.description('whether it is paused until somebody resumes it, not only for a copy')),
  ),
});

export const attachedVbd = answer<AttachResult>()({
  ...vbd.entries,
  notes: v.exactOptional(v.pipe(v.array(text), v.description('remarks for the user'))),
});

const detachedVbd = answer<DetachedVbd>()({
  ...vbd.entries,
  // the description is outside, so that the schema inside is the named one
  error: v.pipe(v.exactOptional(plainError), v.description('why acknowledged writes may be lost')),
  cutOff: v.exactOptional(v.pipe(v.array(holder), v.description('what used it when it was detached by force'))),
});

export const detached = answer<DetachResult>()({
  vbds: v.array(detachedVbd),
  ended: v.pipe(flag, v.description('whether the bus ends now')),
});

export const bus = answer<BusInfo>()({
  bus: text,
  path: v.pipe(path, v.description('the mount point')),
  transport,
  allowOther: v.pipe(flag, v.description('whether other users may use the bus')),
  keeperPid: pid,
  serverPid: pid,
  restarts: count,
  state,
  bookkeeping: v.exactOptional(
    v.pipe(
      v.nullable(text),
      v.description('why the files of the bus in the runtime directory may be out of date; null: they are up to date'),
    ),
  ),
  unit: v.exactOptional(
    v.pipe(v.nullable(text), v.description('the unit of systemd in which its processes are; null: in none')),
  ),
  interface: text,
  version: v.exactOptional(busVersion),
  vbds: v.array(vbd),
});

const us = v.nullable(v.number());
const kind = answer<KindStats>()({
  requests: integer,
  bytes: count,
  errors: integer,
  latencyUs: v.strictObject({ p50: us, p99: us, max: us }),
});

export const stats = answer<VbdStats>()({
  bus: text,
  vdev: text,
  passthrough: flag,
  ...{ read: kind, write: kind, flush: kind, discard: kind },
});

const milliseconds = v.pipe(v.number(), v.minValue(0));
const bucket = v.strictTuple([v.number(), v.number(), count]) satisfies v.GenericSchema<unknown, HistogramBucket>;
const kindCounters = answer<KindCounters>()({
  requests: count,
  bytes: count,
  errors: count,
  maxUs: v.number(),
  histogram: v.pipe(
    v.array(bucket),
    v.description(
      '[FROM, TO, REQUESTS]: how many took at least FROM and less than TO µs; ascending, without empty ones',
    ),
  ),
});
const processCounters = answer<ProcessCounters>()({
  pid: v.pipe(integer, v.minValue(1)),
  cpuMs: v.pipe(milliseconds, v.description('processor time since its start')),
  rssBytes: count,
  pssBytes: v.pipe(v.nullable(count), v.description('proportional set size; up to ten seconds old')),
});
const vbdCounters = answer<VbdCounters>()({
  vdev: text,
  id: v.pipe(integer, v.description('tells it from a later vbd of the same name on this run of the bus')),
  disk: v.pipe(v.nullable(text), v.description('the vdev of its disk if this is a partition')),
  driver: text,
  image: v.nullable(text),
  mode: v.picklist(MODES),
  size: count,
  state,
  passthrough: v.pipe(flag, v.description('true: its I/O is not counted')),
  broken: v.nullable(text),
  imageState: v.pipe(
    v.nullable(v.picklist(['not-answering', 'gone'])),
    v.description('the last known one; nobody is asked for it'),
  ),
  opens: count,
  inProgress: v.pipe(count, v.description('how many requests the server works on now')),
  oldestMs: v.pipe(milliseconds, v.description('how long the oldest of them has been seen in progress, at least')),
  flushErrors: count,
  ...{ read: kindCounters, write: kindCounters, flush: kindCounters, discard: kindCounters },
});

export const counters = answer<BusCounters>()({
  bus: text,
  path,
  run: v.pipe(text, v.description('tells the bus from a later one of the same name')),
  monotonicMs: v.pipe(v.number(), v.description("when this was counted, by the machine's monotonic clock")),
  state,
  restarts: v.pipe(v.nullable(count), v.description('null if not known: its keeper has died')),
  keeper: v.nullable(processCounters),
  server: v.nullable(processCounters),
  waiting: v.pipe(
    v.nullable(count),
    v.description('how many requests the kernel has that are not answered; null if not known'),
  ),
  mark: v.pipe(v.optional(text), v.description('ask with `since` and this, to get only what has changed')),
  ids: v.pipe(
    v.optional(v.array(v.number())),
    v.description('with `since`: of all vbds, in order; `vbds` has only those that have changed'),
  ),
  vbds: v.pipe(v.array(vbdCounters), v.description('each followed by its partitions')),
});

/** The events are listed in mount/runtime/log-line.ts; a newer bus has more. */
export const event = v.looseObject({
  time: v.pipe(v.nullable(text), v.description('UTC; null if it is output of a process')),
  event: text,
});

const ramImage = answer<RamImageInfo>()({
  share: text,
  image: text,
  configuredBytes: count,
  residentBytes: count,
  holders: v.array(holder),
});

export const memory = answer<MemoryInfo>()({
  totalBytes: count,
  usedBytes: count,
  freeBytes: count,
  images: v.array(ramImage),
});

const name = v.nullable(text);
export const names = answer<FileNames>()({
  bus: text,
  vdev: text,
  slot: integer,
  path: v.pipe(path, v.description('the file of the vbd or partition')),
  type: v.pipe(name, v.description('as blkid(8) names it')),
  usage: v.nullable(v.picklist(['filesystem', 'crypto', 'raid', 'other'])),
  label: name,
  labelEncoded: v.pipe(name, v.description('as in by-label, with unsafe characters as \\x20')),
  uuid: v.pipe(name, v.description('a UUID, or the volume id of FAT, exFAT, NTFS or ISO 9660')),
  partlabel: v.pipe(name, v.description('of a partition: its name in a GPT')),
  partuuid: v.pipe(name, v.description('of a partition, in small letters')),
  known: v.exactOptional(
    v.pipe(v.literal(false), v.description('the disk could not be read now: it may have other names')),
  ),
});

const change = answer<Change>()({
  offset: count,
  length: count,
  kind: v.pipe(v.picklist(['data', 'zeros']), v.description('zeros: it reads as zeros, and takes no space')),
});
export const changes = answer<ChangesResult>()({
  changes: v.pipe(v.array(change), v.description('in order; a bounded part of all of them')),
  next: v.pipe(v.nullable(count), v.description('the offset to ask for next; null: there are no more')),
});
const mapExtent = answer<MapExtent>()({
  start: count,
  length: count,
  depth: v.pipe(
    integer,
    v.description('how many disks down it is: 0 in the image itself, 1 in its backing file or base'),
  ),
  present: v.pipe(flag, v.description('false: no image of the chain has it, so it reads as zeros')),
  zero: v.pipe(flag, v.description('it reads as zeros')),
  data: v.pipe(flag, v.description('an image has it as data; with zero too, in a hole of its file')),
  compressed: flag,
  offset: v.pipe(v.nullable(count), v.description('in filename; null if its bytes are not plain in a file')),
  filename: v.nullable(text),
});
export const map = answer<MapResult>()({
  extents: v.pipe(v.array(mapExtent), v.description('in order, without gaps; a bounded part of all of them')),
  next: v.pipe(v.nullable(count), v.description('the offset to ask for next; null: there are no more')),
});
export const saved = answer<SaveResult>()({
  path: v.pipe(v.nullable(path), v.description('of the copy; null if it is not in a file')),
  size: count,
});

export const committed = answer<CommitResult>()({
  base: v.pipe(v.nullable(text), v.description('the image that has the data now')),
  notes: v.exactOptional(v.pipe(v.array(text), v.description('remarks for the user'))),
});
export const upgraded = answer<UpgradeResult>()({
  bus,
  pauseMs: v.number(),
  program: v.exactOptional(v.pipe(text, v.description('the program of the server that runs now'))),
});
export const version = answer<VersionInfo>()({
  interface: text,
  fusetap: v.pipe(text, v.description('of the process that answers: of the keeper, if it lives')),
  server: v.exactOptional(versionText),
});
export const failure = answer<ErrorAnswer>()({ error: plainError });

/** The schemas that have a name in docs/openapi.json; all others are written where they are used. */
export const NAMED_ANSWERS = {
  Version: version,
  Bus: bus,
  Vbd: vbd,
  AttachedVbd: attachedVbd,
  Stats: stats,
  Names: names,
  Counters: counters,
  Event: event,
  Detached: detached,
  Saved: saved,
  Committed: committed,
  Changes: changes,
  Map: map,
  Memory: memory,
  Upgraded: upgraded,
  Error: failure,
  BusVersion: busVersion,
  Holder: holder,
  PlainError: plainError,
  Partition: partition,
  Change: change,
  MapExtent: mapExtent,
  Kind: kind,
  KindCounters: kindCounters,
  ProcessCounters: processCounters,
  VbdCounters: vbdCounters,
  RamImage: ramImage,
} as const;
