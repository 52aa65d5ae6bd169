/**
 * Ceph's libraries librados and librbd, by FFI. They are optional: loadLibrbd loads them when a disk of Ceph is first
 * opened.
 *
 * As in libc.ts, addresses and handles are Numbers, and a call returns its count or a negative errno. Calls under "hot"
 * never wait. All others may wait for the cluster, some of them for ever: no thread that has other work may make them.
 */
import koffi from 'koffi';
import { addressOf } from './libc.js';

/** Why the libraries cannot be used. */
export class LibraryMissing extends Error {
  override readonly name = 'LibraryMissing';
  /** the function that an old library lacks; null: a library is not installed */
  readonly lacks: string | null;

  constructor(message: string, lacks: string | null) {
    super(message);
    this.lacks = lacks;
  }
}

/** The names under which the dynamic linker finds the libraries. */
export interface LibraryNames {
  readonly rados: string;
  readonly rbd: string;
}

const NAMES: LibraryNames = { rados: 'librados.so.2', rbd: 'librbd.so.1' };

type Foreign<A extends unknown[]> = (...args: A) => number;
type Address = number;

/** numbers of <rbd/librbd.h> */
export const LOCK_EXCLUSIVE = 0;
export const EVENT_PIPE = 1;
export const ZEROES_THICK = 1;
export const FEATURE = { exclusiveLock: 4, objectMap: 8, fastDiff: 16 } as const;
/** flags: a table of the image is not up to date */
export const INVALID = { objectMap: 1, fastDiff: 2 } as const;

export type Librbd = ReturnType<typeof bind>;

let loaded: Librbd | null = null;

/** Loads the libraries, once in a thread. @throws LibraryMissing */
export function loadLibrbd(names: LibraryNames = NAMES): Librbd {
  if (names !== NAMES) return bind(names);
  loaded ??= bind(names);
  return loaded;
}

function open(name: string): ReturnType<typeof koffi.load> {
  try {
    return koffi.load(name);
  } catch (error) {
    throw new LibraryMissing(`${name}: ${(error as Error).message}`, null);
  }
}

/** The callback of rbd_diff_iterate2: it is called during the call only. */
const DIFF_CALLBACK = 'int librbd_diff(uint64 offset, size_t length, int exists, intptr_t argument)';
let diffCallback: ReturnType<typeof koffi.proto> | null = null;

function bind(names: LibraryNames) {
  const [rados, rbd] = [open(names.rados), open(names.rbd)];
  const from =
    (library: typeof rados) =>
    <A extends unknown[]>(name: string | readonly string[], result: string, ...parameters: string[]): Foreign<A> => {
      const all = typeof name === 'string' ? [name] : name;
      for (const each of all) {
        try {
          return library.func(each, result, parameters) as unknown as Foreign<A>;
        } catch {
          // an older name of the same function follows
        }
      }
      throw new LibraryMissing(`it has no ${all[0]}`, all[0] ?? '');
    };
  diffCallback ??= koffi.proto(DIFF_CALLBACK);
  return { ...bindRados(from(rados)), ...bindImages(from(rbd)), ...bindHot(from(rbd)), diffIterate: bindDiff(rbd) };
}

type Bind = <A extends unknown[]>(
  name: string | readonly string[],
  result: string,
  ...parameters: string[]
) => Foreign<A>;

const P = 'intptr_t';

function bindRados(f: Bind) {
  return {
    radosCreate: f<[Address, string, string, number]>('rados_create2', 'int', P, 'str', 'str', 'uint64'),
    readConf: f<[Address, string | null]>('rados_conf_read_file', 'int', P, 'str'),
    setConf: f<[Address, string, string]>('rados_conf_set', 'int', P, 'str', 'str'),
    connect: f<[Address]>('rados_connect', 'int', P),
    shutdown: f<[Address]>('rados_shutdown', 'void', P),
    createIo: f<[Address, string, Address]>('rados_ioctx_create', 'int', P, 'str', P),
    setNamespace: f<[Address, string]>('rados_ioctx_set_namespace', 'void', P, 'str'),
    destroyIo: f<[Address]>('rados_ioctx_destroy', 'void', P),
    addresses: f<[Address, Address]>('rados_getaddrs', 'int', P, P),
    freeBuffer: f<[Address]>('rados_buffer_free', 'void', P),
    // the second name is that of Ceph 15
    blocklist: f<[Address, string, number]>(['rados_blocklist_add', 'rados_blacklist_add'], 'int', P, 'str', 'uint32'),
    waitForMap: f<[Address]>('rados_wait_for_latest_osdmap', 'int', P),
  };
}

function bindImages(f: Bind) {
  return {
    isAtLeast: bindVersion(f),
    openImage: f<[Address, string, Address, null]>('rbd_open', 'int', P, 'str', P, 'str'),
    openReadOnly: f<[Address, string, Address, null]>('rbd_open_read_only', 'int', P, 'str', P, 'str'),
    closeImage: f<[Address]>('rbd_close', 'int', P),
    setSnapshot: f<[Address, string]>('rbd_snap_set', 'int', P, 'str'),
    snapshotId: f<[Address, string, Address]>('rbd_snap_get_id', 'int', P, 'str', P),
    size: f<[Address, Address]>('rbd_get_size', 'int', P, P),
    stat: f<[Address, Address, number]>('rbd_stat', 'int', P, P, 'size_t'),
    /** bytes of it that are its parent's as long as they are not written */
    overlap: f<[Address, Address]>('rbd_get_overlap', 'int', P, P),
    stripeCount: f<[Address, Address]>('rbd_get_stripe_count', 'int', P, P),
    features: f<[Address, Address]>('rbd_get_features', 'int', P, P),
    flags: f<[Address, Address]>('rbd_get_flags', 'int', P, P),
    imageId: f<[Address, Address, number]>('rbd_get_id', 'int', P, P, 'size_t'),
    acquireLock: f<[Address, number]>('rbd_lock_acquire', 'int', P, 'int'),
    lockOwners: f<[Address, Address, Address, Address]>('rbd_lock_get_owners', 'int', P, P, P, P),
    freeOwners: f<[Address, number]>('rbd_lock_get_owners_cleanup', 'void', P, 'size_t'),
    breakLock: f<[Address, number, string]>('rbd_lock_break', 'int', P, 'int', 'str'),
    watchers: f<[Address, Address, Address]>('rbd_watchers_list', 'int', P, P, P),
    freeWatchers: f<[Address, number]>('rbd_watchers_list_cleanup', 'void', P, 'size_t'),
    configs: f<[Address, Address, Address]>('rbd_config_image_list', 'int', P, P, P),
    freeConfigs: f<[Address, number]>('rbd_config_image_list_cleanup', 'void', P, 'int'),
  };
}

/** Compares with the version of librbd, which is not that of Ceph. */
function bindVersion(f: Bind): (major: number, minor: number) => boolean {
  const call = f<[Address, Address, Address]>('rbd_version', 'void', P, P, P);
  return (major, minor) => {
    const numbers = new Int32Array(4);
    const start = addressOf(numbers);
    call(start, start + 4, start + 8);
    const [ownMajor = 0, ownMinor = 0] = numbers;
    return ownMajor > major || (ownMajor === major && ownMinor >= minor);
  };
}

function bindHot(f: Bind) {
  return {
    createCompletion: f<[Address, Address, Address]>('rbd_aio_create_completion', 'int', P, P, P),
    read: f<[Address, number, number, Address, Address]>('rbd_aio_read', 'int', P, 'uint64', 'size_t', P, P),
    write: f<[Address, number, number, Address, Address]>('rbd_aio_write', 'int', P, 'uint64', 'size_t', P, P),
    // since Ceph 15
    writeZeroes: f<[Address, number, number, Address, number, number]>(
      ...(['rbd_aio_write_zeroes', 'int', P, 'uint64', 'size_t', P, 'int', 'int'] as const),
    ),
    flush: f<[Address, Address]>('rbd_aio_flush', 'int', P, P),
    result: f<[Address]>('rbd_aio_get_return_value', 'int64', P),
    release: f<[Address]>('rbd_aio_release', 'void', P),
    notify: f<[Address, number, number]>('rbd_set_image_notification', 'int', P, 'int', 'int'),
    poll: f<[Address, Address, number]>('rbd_poll_io_events', 'int', P, P, 'int'),
  };
}

type DiffCallback = (offset: number, length: number, exists: number, argument: number) => number;

function bindDiff(rbd: ReturnType<typeof koffi.load>) {
  const call = rbd.func('rbd_diff_iterate2', 'int', [
    ...[P, 'str', 'uint64', 'uint64', 'uint8', 'uint8'],
    koffi.pointer(diffCallback as ReturnType<typeof koffi.proto>),
    P,
  ]) as unknown as (...args: unknown[]) => number;
  /** Calls `found` for each run of data in the range, with the parents of a clone. Whole objects only: others are asked. */
  return (image: Address, offset: number, length: number, found: (offset: number, length: number) => void): number => {
    const callback: DiffCallback = (at, bytes, exists) => {
      if (exists !== 0) found(Number(at), Number(bytes));
      return 0;
    };
    return call(image, null, offset, length, 1, 1, callback, 0);
  };
}

/** The text at an address, up to its zero byte. */
export function textAt(address: Address): string {
  return koffi.decode(BigInt(address), 'char', -1) as string;
}
