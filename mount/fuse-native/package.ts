/**
 * Loads the package fuse-native only when it is needed: it is optional, and its binary needs the system's libfuse.so.2.
 *
 * Two undocumented parts of it are used, so package.json names an exact version. `_fuseOptions`: the package passes on
 * only some of libfuse's options, without those that a disk needs. `_handlers`: the package passes the access time
 * twice if a client sets both times.
 */
import { createRequire } from 'node:module';
import { FusetapError } from '../../drivers/errors.js';

const PACKAGE = 'fuse-native';

/** Answers a callback: 0, a count of bytes, or −errno. */
export type Reply = (result: number) => void;
/** Answers a callback, with a value on success. */
export type ReplyWith<Value> = (result: number, value?: Value) => void;

/** The attributes of a file for the package; times in milliseconds. */
export interface NativeStat {
  mode: number;
  uid: number;
  gid: number;
  size: number;
  nlink: number;
  blocks: number;
  blksize: number;
  atime: number;
  mtime: number;
  ctime: number;
}

/** The operations that the package calls on the main thread. Paths begin with `/`; `fh` is the answer of `open`. */
export interface NativeOperations {
  statfs(path: string, reply: ReplyWith<Record<string, number>>): void;
  getattr(path: string, reply: ReplyWith<NativeStat>): void;
  readlink(path: string, reply: ReplyWith<string>): void;
  readdir(path: string, reply: (result: number, names?: string[], stats?: NativeStat[]) => void): void;
  truncate(path: string, size: number, reply: Reply): void;
  ftruncate(path: string, fh: number, size: number, reply: Reply): void;
  utimens(path: string, atimeMs: number, mtimeMs: number, reply: Reply): void;
  chown(path: string, uid: number, gid: number, reply: Reply): void;
  chmod(path: string, mode: number, reply: Reply): void;
  open(path: string, flags: number, reply: ReplyWith<number>): void;
  read(path: string, fh: number, buffer: Uint8Array, length: number, offset: number, reply: Reply): void;
  write(path: string, fh: number, buffer: Uint8Array, length: number, offset: number, reply: Reply): void;
  fsync(path: string, isDataOnly: number, fh: number, reply: Reply): void;
  fsyncdir(path: string, isDataOnly: number, fh: number, reply: Reply): void;
  release(path: string, fh: number, reply: Reply): void;
  create(path: string, mode: number, reply: ReplyWith<number>): void;
  mknod(path: string, mode: number, device: number, reply: Reply): void;
  unlink(path: string, reply: Reply): void;
  rename(from: string, to: string, reply: Reply): void;
  link(from: string, to: string, reply: Reply): void;
  symlink(from: string, to: string, reply: Reply): void;
  mkdir(path: string, mode: number, reply: Reply): void;
  rmdir(path: string, reply: Reply): void;
}

/** a call as it comes from the package's binary: the record of the call, the number of the operation, its arguments */
type NativeHandler = (record: Buffer, operation: number, ...words: unknown[]) => unknown;

interface NativeFuse {
  mount(done: (error: Error | null) => void): void;
  _handlers: NativeHandler[];
  _fuseOptions(): string;
}

type NativeFuseClass = new (
  mountpoint: string,
  operations: NativeOperations,
  options: { timeout: false },
) => NativeFuse;

/**
 * `direct_io`: the page cache of the image is the only cache. `big_writes`, `max_write`: writes of 128 KiB, the most
 * that libfuse 2 takes; the default is 4 KiB. Timeouts of 0: names are not cached. Without `atomic_o_trunc` an open
 * with O_TRUNC comes as a truncate to 0.
 */
const OPTIONS = [
  'fsname=fusetap',
  'subtype=fusetap',
  'default_permissions',
  'direct_io',
  'big_writes',
  'max_write=131072',
  'hard_remove',
  'entry_timeout=0',
  'negative_timeout=0',
  'attr_timeout=0',
  'ac_attr_timeout=0',
];

/**
 * Mounts a bus on a directory; the operations serve it.
 * @throws FusetapError UNSUPPORTED if the package or its library is missing, FAILED if libfuse cannot mount
 */
export async function mountNative(
  mountpoint: string,
  operations: NativeOperations,
  { allowOther }: { readonly allowOther: boolean },
): Promise<void> {
  const Fuse = loadPackage();
  // no timeout: the package would answer ETIMEDOUT for a slow or paused disk
  const fuse = new Fuse(mountpoint, operations, { timeout: false });
  const options = [...OPTIONS, ...(allowOther ? ['allow_other'] : [])];
  fuse._fuseOptions = () => `-o${options.join(',')}`;
  correctUtimens(fuse);
  await new Promise<void>((resolve, reject) => {
    fuse.mount((error) => (error === null ? resolve() : reject(cannotMount(mountpoint, error))));
  });
}

function cannotMount(path: string, cause: Error): FusetapError {
  if (cause.message === 'Mountpoint in use') {
    return new FusetapError('UNSUPPORTED', `transport ${PACKAGE} cannot mount a bus on a mount point: ${path}`, {
      hint: 'give a directory below it, or use --transport kernel',
      path,
    });
  }
  return new FusetapError('FAILED', `${PACKAGE} cannot mount a bus on ${path}: ${cause.message}`, {
    hint: 'the log of the bus has the messages of libfuse; or use --transport kernel',
    path,
    cause,
  });
}

function loadPackage(): NativeFuseClass {
  try {
    return createRequire(import.meta.url)(PACKAGE) as NativeFuseClass;
  } catch (cause) {
    const text = (cause as Error).message.split('\n')[0] ?? '';
    throw new FusetapError('UNSUPPORTED', `transport ${PACKAGE} cannot be used: ${text}`, {
      hint: howToFix(text),
      cause,
    });
  }
}

function howToFix(text: string): string {
  if (/libfuse\.so/.test(text)) return `the package ${PACKAGE} needs libfuse 2: apt install libfuse2`;
  if (/No native build/.test(text))
    return `the package ${PACKAGE} has no binary for this machine: use --transport kernel`;
  return `npm install ${PACKAGE}, and apt install libfuse2`;
}

/** the number of the operation, and the offsets of the original times in the binary's record of a call (x64) */
const UTIMENS = 12;
const RECORD_BYTES = 360;
const ATIME_AT = 104;
const MTIME_AT = 112;

/** Corrects utimens: replaces the repeated access time with the modification time. */
function correctUtimens(fuse: NativeFuse): void {
  const handler = fuse._handlers[UTIMENS];
  if (handler === undefined) return;
  fuse._handlers[UTIMENS] = function (this: unknown, record, operation, ...words) {
    const [path, low, high, ...repeated] = words;
    const isKnown = record.length === RECORD_BYTES && record.readUInt32LE(ATIME_AT) === low;
    const mtime = isKnown ? [record.readUInt32LE(MTIME_AT), record.readUInt32LE(MTIME_AT + 4)] : repeated;
    return handler.call(this, record, operation, path, low, high, ...mtime);
  };
}
