/**
 * The control interface as a table: each row defines a request completely. A new request is a new row.
 *
 *      rows ─┬─ http-server.ts    finds the row of a request, checks the request, calls the method with the row's name
 *            ├─ bus-control.ts    (types) that method, which the keeper must have
 *            ├─ call.ts           (types) the arguments and the result of a client
 *            ├─ docs/openapi.json    made from the rows
 *            └─ docs/control.md      compared with the rows by a test
 *
 * Clients import only types of this file: loading the schemas would take a tenth of each command's time.
 */
import * as v from 'valibot';
import { MODES } from '../images/mode.js';
import * as answers from './answers.js';
import {
  type AttachRequest,
  type BusWishes,
  OPEN_METRICS_TYPE,
  PROGRESS_TYPE,
  type SaveRequest,
  type SwapRequest,
  type UpgradeRequest,
} from './interface.js';
import {
  absolutePath,
  asDiskWish,
  asSaveRequest,
  busWishes,
  diskWish,
  fileMode,
  flag,
  id,
  offsetText,
  oneOf,
  seconds,
  secondsText,
  sectorSize,
  sharesByName,
  text,
} from './schemas.js';

/** A request. The key of its row is the name of the method that answers it, and its name in docs/openapi.json. */
export interface Row {
  /** method and path, in which `{vdev}` stands for a vdev or the number of a slot */
  readonly line: `${'GET' | 'POST' | 'DELETE'} /${string}`;
  readonly summary: string;
  readonly query?: v.GenericSchema;
  readonly body?: v.GenericSchema;
  readonly answer: v.GenericSchema;
  /** the HTTP status of the answer if it is not an error; default 200 */
  readonly status?: number;
  /** while it copies, it reports its progress if the client asks for that */
  readonly tellsProgress?: true;
  /** it is undone if the client does not read the answer: its signal is then aborted after the answer was sent */
  readonly isUndone?: true;
  /** a server whose keeper died answers it too */
  readonly withoutKeeper?: true;
  /** the media type of an answer that is not JSON: text, or lines that come until somebody ends them */
  readonly media?: string;
}

/** the copy for which a vbd is paused; default: the user's own pause */
const ofCopy = v.object({
  copy: v.optional(
    v.pipe(
      text,
      v.regex(/^\d+:\d+:\d+$/, 'must be the name of a copy'),
      v.description('sent by other buses only: the copy for which the vbd is paused'),
    ),
  ),
});

export const ROUTES = {
  version: {
    line: 'GET /version',
    summary: 'The versions of the interface and of fusetap',
    answer: answers.version,
    withoutKeeper: true,
  },
  showBus: {
    line: 'GET /bus',
    summary: 'The bus and its vbds',
    answer: answers.bus,
    withoutKeeper: true,
  },
  listVbds: {
    line: 'GET /vbds',
    summary: 'The vbds of the bus',
    answer: v.array(answers.vbd),
    withoutKeeper: true,
  },
  attach: {
    line: 'POST /vbds',
    summary: 'Attaches an image',
    body: v.pipe(
      v.strictObject({
        ...diskWish,
        vdev: v.optional(v.pipe(v.nullable(text), v.description('null: the first free xvd*')), null),
        mode: v.optional(oneOf(MODES), 'w'),
        ...busWishes,
        passthrough: v.optional(oneOf(['auto', 'on', 'off']), 'auto'),
        filters: v.optional(
          v.pipe(
            v.array(v.strictObject({ name: text, value: v.optional(text, '') })),
            v.description('the first is next to the driver'),
          ),
        ),
        partitions: v.optional(v.pipe(flag, v.description('also show its partitions as files'))),
        sectorSize: v.optional(
          v.pipe(sectorSize, v.description('of the partition table; default: a GPT tells, an MBR counts in 512 bytes')),
        ),
        uid: v.optional(v.pipe(id, v.description('owner of the file; default: the owner of the bus'))),
        gid: v.optional(id),
        fileMode: v.optional(v.pipe(fileMode, v.description('permission bits of the file, octal; default: 0600'))),
      }),
      asDiskWish(),
      sharesByName(),
    ) satisfies v.GenericSchema<unknown, AttachRequest>,
    answer: answers.attachedVbd,
    status: 201,
    tellsProgress: true,
    isUndone: true,
  },
  stats: {
    line: 'GET /stats',
    summary: 'Counters and latencies of the requests of each vbd, since its attach',
    answer: v.array(answers.stats),
    withoutKeeper: true,
  },
  names: {
    line: 'GET /names',
    summary: 'What the vbds and partitions hold: type, label, UUID; read from the disks, for a second at most',
    answer: v.array(answers.names),
    withoutKeeper: true,
  },
  counters: {
    line: 'GET /counters',
    summary: 'All that the bus counts: requests with histograms of their latency, processor time, memory, restarts',
    query: v.strictObject({
      since: v.optional(
        v.pipe(v.string(), v.description('the `mark` of an earlier answer: only vbds that have changed since then')),
      ),
    }),
    answer: answers.counters,
    withoutKeeper: true,
  },
  metrics: {
    line: 'GET /metrics',
    summary: 'The same for Prometheus, as OpenMetrics text; to a client that accepts only text/plain, in its format',
    answer: v.string(),
    media: OPEN_METRICS_TYPE,
    withoutKeeper: true,
  },
  events: {
    line: 'GET /events',
    summary: 'The events of the bus as they happen, a line of JSON each, until the client leaves or the bus ends',
    answer: answers.event,
    media: PROGRESS_TYPE,
    withoutKeeper: true,
  },
  memory: {
    line: 'GET /memory',
    summary: 'The ram images of all buses',
    answer: answers.memory,
    withoutKeeper: true,
  },
  detach: {
    line: 'DELETE /vbds/{vdev}',
    summary: 'Detaches a vbd. When the answer comes, its data is durable and its file is gone',
    query: v.pipe(
      v.strictObject({
        force: v.optional(v.pipe(oneOf(['0', '1']), v.description('1: detach it even if it is in use')), '0'),
        wait: v.optional(secondsText, '0'),
      }),
      v.transform(({ force, wait }) => ({ force: force === '1', waitMs: wait * 1000 })),
    ),
    answer: answers.detached,
    withoutKeeper: true,
  },
  detachWhenUnused: {
    line: 'POST /vbds/{vdev}/detach-when-unused',
    summary: 'Makes the bus detach a vbd when nobody uses it any more; at once if nobody uses it now',
    answer: answers.vbd,
  },
  pause: {
    line: 'POST /vbds/{vdev}/pause',
    summary: 'Pauses the I/O of a vbd',
    query: ofCopy,
    answer: answers.vbd,
    withoutKeeper: true,
  },
  resume: {
    line: 'POST /vbds/{vdev}/resume',
    summary: 'Resumes the I/O of a vbd',
    query: ofCopy,
    answer: answers.vbd,
    withoutKeeper: true,
  },
  swap: {
    line: 'POST /vbds/{vdev}/swap',
    summary: 'Gives a vbd another image of the same size',
    body: v.pipe(
      v.strictObject({
        ...diskWish,
        pause: v.optional(v.pipe(flag, v.description('pause it for the swap; default: it must be paused already'))),
      }),
      asDiskWish(),
    ) satisfies v.GenericSchema<unknown, SwapRequest>,
    answer: answers.attachedVbd,
    tellsProgress: true,
  },
  save: {
    line: 'POST /vbds/{vdev}/save',
    summary: 'Writes a consistent copy of a vbd to a file, or to a disk of the same size',
    body: v.pipe(
      v.strictObject({
        path: v.optional(v.pipe(absolutePath, v.description('of the file'))),
        to: v.optional(v.pipe(v.strictObject(diskWish), v.description('the disk, in place of path'), asDiskWish())),
        force: v.optional(v.pipe(flag, v.description('replace the file, or overwrite the data of the disk')), false),
      }),
      asSaveRequest(),
    ) satisfies v.GenericSchema<unknown, SaveRequest>,
    answer: answers.saved,
    tellsProgress: true,
  },
  reset: {
    line: 'POST /vbds/{vdev}/reset',
    summary: 'Discards the changes of a ram vbd: copies its image again',
    answer: answers.vbd,
    tellsProgress: true,
  },
  commit: {
    line: 'POST /vbds/{vdev}/commit',
    summary: 'Moves what a vbd has over its base into the base',
    answer: answers.committed,
    tellsProgress: true,
  },
  reread: {
    line: 'POST /vbds/{vdev}/reread',
    summary: 'Reads the partition table of a vbd again',
    answer: answers.attachedVbd,
  },
  resize: {
    line: 'POST /vbds/{vdev}/resize',
    summary: 'Gives a vbd the size that its image has now, if the image has grown',
    answer: answers.vbd,
  },
  changes: {
    line: 'GET /vbds/{vdev}/changes',
    summary: 'Where a vbd differs from its base, from an offset on',
    query: v.strictObject({ offset: v.optional(offsetText, '0') }),
    answer: answers.changes,
  },
  map: {
    line: 'GET /vbds/{vdev}/map',
    summary: 'What the ranges of a disk are, and in which file, from an offset on',
    query: v.strictObject({ offset: v.optional(offsetText, '0') }),
    answer: answers.map,
  },
  start: {
    line: 'POST /start',
    summary: 'Makes the bus stay when it has no vbds',
    body: v.strictObject(busWishes) satisfies v.GenericSchema<unknown, BusWishes>,
    answer: answers.bus,
  },
  upgrade: {
    line: 'POST /upgrade',
    summary: 'Replaces the server of the running bus by the installed version',
    body: v.strictObject({
      program: v.optional(
        v.pipe(absolutePath, v.description("the server's program; default: the one in the keeper's own installation")),
      ),
    }) satisfies v.GenericSchema<unknown, UpgradeRequest>,
    answer: answers.upgraded,
  },
  stop: {
    line: 'POST /stop',
    summary: 'Detaches all vbds and ends the bus',
    body: v.pipe(
      v.strictObject({
        force: v.optional(v.pipe(flag, v.description('detach vbds even if they are in use')), false),
        wait: v.optional(v.pipe(seconds, v.description('seconds to wait first until no vbd is in use; default: 0'))),
      }),
      v.transform(({ force, wait = 0 }) => ({ force, waitMs: wait * 1000 })),
    ),
    answer: answers.detached,
    withoutKeeper: true,
  },
} as const satisfies Readonly<Record<string, Row>>;

export type RouteName = keyof typeof ROUTES;

/** The row of that name; by default the union of all rows. */
export type RowOf<Name extends RouteName = RouteName> = (typeof ROUTES)[Name];

/** The body of the answer, if it is not an error. */
export type AnswerOf<Of extends RowOf> = v.InferOutput<Of['answer']>;

/** `{ vdev }`, if the path has one. */
export type VdevOf<Of extends RowOf> = Of['line'] extends `${string}{vdev}${string}`
  ? { readonly vdev: string }
  : unknown;

/** A value as it is sent, or as its schema gives it to the bus. */
type Side = 'sent' | 'given';
type ValueOf<Schema extends v.GenericSchema, At extends Side> = {
  sent: v.InferInput<Schema>;
  given: v.InferOutput<Schema>;
}[At];

/** `{ query }`, if the row has a schema for it. */
export type QueryOf<Of extends RowOf, At extends Side> = Of extends { query: infer Schema extends v.GenericSchema }
  ? { readonly query: ValueOf<Schema, At> }
  : unknown;

/** `{ body }`, likewise. */
export type BodyOf<Of extends RowOf, At extends Side> = Of extends { body: infer Schema extends v.GenericSchema }
  ? { readonly body: ValueOf<Schema, At> }
  : unknown;
