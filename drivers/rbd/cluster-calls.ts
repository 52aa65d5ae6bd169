/**
 * The calls to a Ceph cluster that may wait, for seconds or for ever. They run in a thread of their own: see cluster.ts.
 * Handles are addresses, which all threads of a process share.
 */
import { addressOf } from '../../system/libc.js';
import { FEATURE, INVALID, type Librbd, LOCK_EXCLUSIVE, textAt } from '../../system/librbd.js';
import type { RbdAddress } from './uri.js';

/** A call that failed. `errno` is positive. */
export class ClusterError extends Error {
  override readonly name = 'ClusterError';
  readonly step: Step;
  readonly errno: number;

  constructor(step: Step, errno: number) {
    super(`${step}: errno ${errno}`);
    this.step = step;
    this.errno = errno;
  }
}

export type Step = 'conf' | 'connect' | 'pool' | 'image' | 'snapshot' | 'lock' | 'fence' | 'ask' | 'close';

/** A client of a cluster, which other clients see under its address. */
export interface Client {
  readonly cluster: number;
  readonly io: number;
  readonly address: string;
}

export interface OpenedImage {
  readonly image: number;
  readonly size: number;
  /** of Ceph: another image of the same name has another one */
  readonly id: string;
  /** of Ceph, too; null: it is no snapshot */
  readonly snapshotId: number | null;
  readonly hasLock: boolean;
  /** where there is data can be told without asking each object */
  readonly hasExtents: boolean;
  /** the name of a setting that must be another one: see NEEDED; null: there is none */
  readonly unsafe: string | null;
}

/**
 * Settings that a configuration file cannot change. The default cache loses acknowledged writes when its process is killed; a
 * write that has timed out may still be done; who breaks a lock must fence its owner.
 */
const SETTINGS: readonly (readonly [string, string])[] = [
  ['rbd_cache', 'false'],
  ['rbd_persistent_cache_mode', 'disabled'],
  ['rbd_blocklist_on_break_lock', 'true'],
  ['rbd_blacklist_on_break_lock', 'true'],
  // a request is begun in the thread that asks for it: a quarter less processor time. It never waits, for there are no limits
  ['rbd_non_blocking_aio', 'false'],
  // more threads wake each other: a tenth more processor time, and one of each brings more than the event loop takes
  ['librados_thread_count', '1'],
  ['ms_async_op_threads', '1'],
  ['objecter_inflight_ops', '0'],
  ['objecter_inflight_op_bytes', '0'],
  ['rados_osd_op_timeout', '0'],
  ['rados_mon_op_timeout', '0'],
  ['client_mount_timeout', '10'],
  // a bus has its own log, and one process has many clients
  ['log_to_stderr', 'false'],
  ['err_to_stderr', 'false'],
  ['admin_socket', ''],
];
/** the configuration of an image or pool overrides these */
const NEEDED: Readonly<Record<string, string>> = {
  rbd_cache: 'false',
  rbd_persistent_cache_mode: 'disabled',
  rbd_blocklist_on_break_lock: 'true',
};

const cells = new BigUint64Array(2);
const cell = addressOf(cells);
const told = (): number => Number(cells[0]);

export type ClusterCalls = ReturnType<typeof clusterCalls>;

/** All calls, by name. Each takes one plain value and returns one; all throw ClusterError. */
export function clusterCalls(library: Librbd) {
  return {
    connect: (address: RbdAddress) => connect(library, address),
    disconnect: ({ cluster, io }: Client): void => {
      library.destroyIo(io);
      library.shutdown(cluster);
    },
    open: (wish: OpenWish) => openImage(library, wish),
    close: (image: number): void => void must('close', library.closeImage(image)),
    size: (image: number): number => {
      must('ask', library.size(image, cell));
      return told();
    },
    /** @returns 0, or a negative errno */
    acquire: (image: number): number => library.acquireLock(image, LOCK_EXCLUSIVE),
    owners: (image: number) => owners(library, image),
    watchers: (image: number) => watchers(library, image),
    fence: (wish: FenceWish) => fence(library, wish),
    data: (range: DataWish) => data(library, range),
  };
}

export interface OpenWish {
  readonly io: number;
  readonly name: string;
  readonly snapshot: string | null;
  readonly readOnly: boolean;
}

/** Which clients must not write any more. */
export interface FenceWish {
  readonly cluster: number;
  readonly image: number;
  readonly addresses: readonly string[];
  /** the one that has the lock; null: none has it */
  readonly owner: string | null;
}

export interface DataWish {
  readonly image: number;
  readonly offset: number;
  readonly length: number;
}

function must(step: Step, result: number): number {
  if (result < 0) throw new ClusterError(step, -result);
  return result;
}

function connect(library: Librbd, { id, conf, keyring, monitors, pool, namespace }: RbdAddress): Client {
  must('conf', library.radosCreate(cell, 'ceph', `client.${id}`, 0));
  const cluster = told();
  try {
    const read = library.readConf(cluster, conf);
    if (read < 0 && (conf !== null || monitors === null)) throw new ClusterError('conf', -read);
    if (keyring !== null) must('conf', library.setConf(cluster, 'keyring', keyring));
    if (monitors !== null) must('conf', library.setConf(cluster, 'mon_host', monitors));
    // an older or newer Ceph does not know all of them
    for (const [name, value] of SETTINGS) library.setConf(cluster, name, value);
    must('connect', library.connect(cluster));
    must('pool', library.createIo(cluster, pool, cell));
  } catch (error) {
    library.shutdown(cluster);
    throw error;
  }
  const io = told();
  if (namespace !== '') library.setNamespace(io, namespace);
  must('connect', library.addresses(cluster, cell));
  const address = textAt(told());
  library.freeBuffer(told());
  return { cluster, io, address: plainAddress(address) };
}

/** As the owners of locks are named: without the version of the protocol. */
function plainAddress(address: string): string {
  return address.replace(/^(v1|v2|any):/, '');
}

function openImage(library: Librbd, { io, name, snapshot, readOnly }: OpenWish): OpenedImage {
  const open = readOnly ? library.openReadOnly : library.openImage;
  must('image', open(io, name, cell, null));
  const image = told();
  try {
    let snapshotId: number | null = null;
    if (snapshot !== null) {
      must('snapshot', library.setSnapshot(image, snapshot));
      must('snapshot', library.snapshotId(image, snapshot, cell));
      snapshotId = told();
    }
    must('ask', library.size(image, cell));
    const size = told();
    must('ask', library.features(image, cell));
    const features = told();
    return {
      ...{ image, size, id: idOf(library, image), snapshotId },
      hasLock: (features & FEATURE.exclusiveLock) !== 0,
      hasExtents: canTellExtents(library, image),
      unsafe: readOnly ? null : unsafeSetting(library, image),
    };
  } catch (error) {
    library.closeImage(image);
    throw error;
  }
}

/** Whether it can be told at once where there is data, and what is told is right. */
function canTellExtents(library: Librbd, image: number): boolean {
  must('ask', library.features(image, cell));
  if ((told() & FEATURE.fastDiff) === 0) return false;
  must('ask', library.flags(image, cell));
  if ((told() & (INVALID.fastDiff | INVALID.objectMap)) !== 0) return false;
  if (library.isAtLeast(...FIRST_RIGHT)) return true;
  must('ask', library.stripeCount(image, cell));
  const isStriped = told() > 1;
  must('ask', library.overlap(image, cell));
  return !isStriped && told() === 0;
}

/**
 * The first version of librbd, of Ceph 17, whose runs of data are right for all images. Before it, until Ceph 16.2.8, they are
 * shifted if the range does not begin with an object, and those of a parent are left out: holes over data. The number does not
 * tell 16.2.8 from 16.2.7.
 */
const FIRST_RIGHT = [1, 17] as const;

function idOf(library: Librbd, image: number): string {
  const text = Buffer.alloc(256);
  // an image of the first format has none
  if (library.imageId(image, addressOf(text), text.length) < 0) return '';
  return text.toString('utf8', 0, text.indexOf(0));
}

/** words of rbd_config_option_t: the addresses of name and value, and where it was set */
const CONFIG_WORDS = 3;
const MOST_CONFIGS = 1024;

function unsafeSetting(library: Librbd, image: number): string | null {
  const words = new BigUint64Array(CONFIG_WORDS * MOST_CONFIGS);
  const count = new Int32Array([MOST_CONFIGS]);
  must('ask', library.configs(image, addressOf(words), addressOf(count)));
  const number = count[0] ?? 0;
  const at = (index: number): string => textAt(Number(words[index]));
  const names = Array.from({ length: number }, (_, i) => [at(CONFIG_WORDS * i), at(CONFIG_WORDS * i + 1)] as const);
  library.freeConfigs(addressOf(words), number);
  const found = names.find(([name, value]) => Object.hasOwn(NEEDED, name) && NEEDED[name] !== value);
  return found === undefined ? null : found[0];
}

const E = { NOENT: 2, RANGE: 34 };
/** Ceph allows one owner of an exclusive lock */
const MOST_OWNERS = 16;

/** The addresses of the clients that have the lock of an image. */
function owners(library: Librbd, image: number): string[] {
  const texts = new BigUint64Array(MOST_OWNERS);
  const count = new BigUint64Array([BigInt(MOST_OWNERS)]);
  const result = library.lockOwners(image, cell, addressOf(texts), addressOf(count));
  if (result === -E.NOENT) return [];
  must('lock', result);
  const number = Number(count[0]);
  const found = Array.from({ length: number }, (_, i) => textAt(Number(texts[i])));
  library.freeOwners(addressOf(texts), number);
  return found.map(plainAddress);
}

/** words of rbd_image_watcher_t: the address of its text, and two numbers */
const WATCHER_WORDS = 3;

/** The addresses of the clients that have an image open, except those that opened it only to read. */
function watchers(library: Librbd, image: number): string[] {
  for (let most = 32; ; most *= 4) {
    const words = new BigUint64Array(WATCHER_WORDS * most);
    const count = new BigUint64Array([BigInt(most)]);
    const result = library.watchers(image, addressOf(words), addressOf(count));
    if (result === -E.RANGE) continue;
    must('ask', result);
    const number = Number(count[0]);
    const found = Array.from({ length: number }, (_, i) => textAt(Number(words[WATCHER_WORDS * i])));
    library.freeWatchers(addressOf(words), number);
    return found.map(plainAddress);
  }
}

/** Nothing that these clients have sent is done after that: each OSD learns it before it does anything for this client. */
function fence(library: Librbd, { cluster, image, addresses, owner }: FenceWish): void {
  for (const address of addresses) must('fence', library.blocklist(cluster, address, 0));
  must('fence', library.waitForMap(cluster));
  // last: as long as the lock is there, no other client takes the image
  const broken = owner === null ? -E.NOENT : library.breakLock(image, LOCK_EXCLUSIVE, owner);
  // it may have been released meanwhile
  if (broken !== -E.NOENT) must('fence', broken);
}

/** Runs of data as offset, length, offset, length …, in order. They may begin before the range, and end after it. */
function data(library: Librbd, { image, offset, length }: DataWish): number[] {
  const start = offset - (offset % wholeBytes(library, image));
  const found: (readonly [offset: number, length: number])[] = [];
  const add = (at: number, bytes: number): void => void found.push([at, bytes]);
  must('ask', library.diffIterate(image, start, offset + length - start, add));
  // librbd asks several objects at once
  return found.sort(([one], [other]) => one - other).flat();
}

/** rbd_image_info_t: its second word is the size of an object */
const INFO_BYTES = 256;

/** The size of an object, or of those that share a stripe: only multiples of it are a start that all librbd understand. */
function wholeBytes(library: Librbd, image: number): number {
  const info = new BigUint64Array(INFO_BYTES / 8);
  must('ask', library.stat(image, addressOf(info), INFO_BYTES));
  must('ask', library.stripeCount(image, cell));
  return Number(info[1]) * told();
}
