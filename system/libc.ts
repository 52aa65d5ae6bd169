/**
 * The C library: with librbd.ts, the only file that touches FFI (koffi).
 *
 * Two kinds of calls:
 *  - hot ones (read, write, pread, …) take a memory address as a plain number and return a count or −errno. A foreign
 *    call that takes only numbers is the cheapest (no object is inspected). They do not throw, because an error is an
 *    ordinary result on these paths.
 *  - all others throw SystemCallError.
 *
 * Addresses are Numbers: user space ends at 2^47 (2^56 with five levels), exact either way.
 * Offsets and lengths are Numbers up to Number.MAX_SAFE_INTEGER. Linux, 64 bit, little-endian.
 */
import { closeSync, constants as fileConstants } from 'node:fs';
import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';
import koffi from 'koffi';

/** A system call that failed. `errno` is positive; `code` its name. */
export class SystemCallError extends Error {
  override readonly name = 'SystemCallError';
  readonly errno: number;
  readonly code: string;
  readonly syscall: string;

  constructor(syscall: string, errno: number, subject?: string) {
    const code = errnoName(errno);
    super(`${syscall}${subject === undefined ? '' : ` ${subject}`}: ${code}`);
    this.errno = errno;
    this.code = code;
    this.syscall = syscall;
  }
}

/** The name of a positive errno, as `EIO`. */
export function errnoName(errno: number): string {
  try {
    return getSystemErrorName(-errno);
  } catch {
    return `errno ${errno}`;
  }
}

export const { errno: E } = constants;
const { O_NONBLOCK } = fileConstants;

const library = koffi.load(null);

/** a foreign function that takes numbers and strings and returns a number; koffi itself types it as `any` */
type Foreign<A extends unknown[]> = ((...args: A) => number) & {
  async: (...args: [...A, (error: Error | null, result: number) => void]) => void;
};

function foreign<A extends unknown[]>(name: string, result: string, ...parameters: string[]): Foreign<A> {
  return library.func(name, result, parameters) as unknown as Foreign<A>;
}

const c = {
  read: foreign<[number, number, number]>('read', 'int64', 'int', 'intptr_t', 'size_t'),
  write: foreign<[number, number, number]>('write', 'int64', 'int', 'intptr_t', 'size_t'),
  pread: foreign<[number, number, number, number]>('pread64', 'int64', 'int', 'intptr_t', 'size_t', 'int64'),
  pwrite: foreign<[number, number, number, number]>('pwrite64', 'int64', 'int', 'intptr_t', 'size_t', 'int64'),
  preadv2: foreign<[number, number, number, number, number]>(
    'preadv64v2',
    'int64',
    'int',
    'intptr_t',
    'int',
    'int64',
    'int',
  ),
  pwritev2: foreign<[number, number, number, number, number]>(
    'pwritev64v2',
    'int64',
    'int',
    'intptr_t',
    'int',
    'int64',
    'int',
  ),
  posix_fadvise: foreign<[number, number, number, number]>('posix_fadvise64', 'int', 'int', 'int64', 'int64', 'int'),
  fsync: foreign<[number]>('fsync', 'int', 'int'),
  fdatasync: foreign<[number]>('fdatasync', 'int', 'int'),
  syncfs: foreign<[number]>('syncfs', 'int', 'int'),
  fallocate: foreign<[number, number, number, number]>('fallocate64', 'int', 'int', 'int', 'int64', 'int64'),
  lseek: foreign<[number, number, number]>('lseek64', 'int64', 'int', 'int64', 'int'),
  ioctl: library.func('int ioctl(int fd, unsigned long request, ...)') as unknown as (...args: unknown[]) => number,
  ioctlAddress: foreign<[number, number, number]>('ioctl', 'int', 'int', 'ulong', 'intptr_t'),
  fcntl: library.func('int fcntl64(int fd, int command, ...)') as unknown as (...args: unknown[]) => number,
  mount: foreign<[string, string, string, number, string]>('mount', 'int', 'str', 'str', 'str', 'ulong', 'str'),
  umount2: foreign<[string, number]>('umount2', 'int', 'str', 'int'),
  memfd_create: foreign<[string, number]>('memfd_create', 'int', 'str', 'uint'),
  getxattr: foreign<[string, string, number, number]>('getxattr', 'int64', 'str', 'str', 'intptr_t', 'size_t'),
  flock: foreign<[number, number]>('flock', 'int', 'int', 'int'),
  linkat: foreign<[number, string, number, string, number]>('linkat', 'int', 'int', 'str', 'int', 'str', 'int'),
  _exit: foreign<[number]>('_exit', 'void', 'int'),
  dup2: foreign<[number, number]>('dup2', 'int', 'int', 'int'),
  mlock: foreign<[number, number]>('mlock', 'int', 'intptr_t', 'size_t'),
  munmap: foreign<[number, number]>('munmap', 'int', 'intptr_t', 'size_t'),
  madvise: foreign<[number, number, number]>('madvise', 'int', 'intptr_t', 'size_t', 'int'),
  memcpy: foreign<[number, number, number]>('memcpy', 'intptr_t', 'intptr_t', 'intptr_t', 'size_t'),
  mmap: library.func('mmap64', 'intptr_t', ['intptr_t', 'size_t', 'int', 'int', 'int', 'int64']) as unknown as (
    ...args: number[]
  ) => number,
  socketpair: library.func('int socketpair(int domain, int type, int protocol, void *fds)') as unknown as (
    ...args: unknown[]
  ) => number,
  recvmsg: foreign<[number, number, number]>('recvmsg', 'int64', 'int', 'intptr_t', 'int'),
  getsockopt: foreign<[number, number, number, number, number]>(
    'getsockopt',
    'int',
    'int',
    'int',
    'int',
    'intptr_t',
    'intptr_t',
  ),
  setsockopt: foreign<[number, number, number, number, number]>(
    'setsockopt',
    'int',
    'int',
    'int',
    'int',
    'intptr_t',
    'uint32',
  ),
  shutdown: foreign<[number, number]>('shutdown', 'int', 'int', 'int'),
  sendmsg: foreign<[number, number, number]>('sendmsg', 'int64', 'int', 'intptr_t', 'int'),
  gettid: foreign<[]>('gettid', 'int'),
  prlimit: foreign<[number, number, number, number]>('prlimit64', 'int', 'int', 'int', 'intptr_t', 'intptr_t'),
  pipe2: foreign<[number, number]>('pipe2', 'int', 'intptr_t', 'int'),
  splice: foreign<[number, number, number, number, number, number]>(
    'splice',
    'int64',
    'int',
    'intptr_t',
    'int',
    'intptr_t',
    'size_t',
    'uint',
  ),
  poll: foreign<[number, number, number]>('poll', 'int', 'intptr_t', 'ulong', 'int'),
  syscall: foreign<[number, number, number, number, number, number]>(
    'syscall',
    'int64',
    'int64',
    'int64',
    'int64',
    'int64',
    'int64',
    'int64',
  ),
  prctl: foreign<[number, number, number, number, number]>('prctl', 'int', 'int', 'ulong', 'ulong', 'ulong', 'ulong'),
};

/** errno of the last failed foreign call; read it before the next call */
const lastErrno = (): number => koffi.errno();

function check(result: number, syscall: string, subject?: string): number {
  if (result < 0) throw new SystemCallError(syscall, lastErrno(), subject);
  return result;
}

// ── hot calls: return a count or −errno ─────────────────────────────────────────────────────────────────────────────

/** read(2) into the memory at `address`. */
export function read(fd: number, address: number, length: number): number {
  const n = c.read(fd, address, length);
  return n >= 0 ? n : -lastErrno();
}

/** write(2) from the memory at `address`. */
export function write(fd: number, address: number, length: number): number {
  const n = c.write(fd, address, length);
  return n >= 0 ? n : -lastErrno();
}

/** pread(2): at most `length` bytes from `offset`; 0 at the end of the file. */
export function pread(fd: number, address: number, length: number, offset: number): number {
  const n = c.pread(fd, address, length, offset);
  return n >= 0 ? n : -lastErrno();
}

/** pwrite(2): at most `length` bytes at `offset`. */
export function pwrite(fd: number, address: number, length: number, offset: number): number {
  const n = c.pwrite(fd, address, length, offset);
  return n >= 0 ? n : -lastErrno();
}

// One struct iovec for the calls below. They never overlap within one thread, and each thread loads its own module.
const iovec = new Uint32Array(new ArrayBuffer(16));
const iovecAddress = Number(koffi.address(iovec));

function setIovec(address: number, length: number): void {
  iovec[0] = address >>> 0;
  iovec[1] = Math.floor(address / 0x1_0000_0000);
  iovec[2] = length;
}

const RWF_DSYNC = 0x2;
const RWF_NOWAIT = 0x8;

/** preadv2(2) RWF_NOWAIT: like pread, but −EAGAIN if it would have to wait for the disk. */
export function preadNoWait(fd: number, address: number, length: number, offset: number): number {
  setIovec(address, length);
  const n = c.preadv2(fd, iovecAddress, 1, offset, RWF_NOWAIT);
  return n >= 0 ? n : -lastErrno();
}

/** pwritev2(2) RWF_NOWAIT: like pwrite, but −EAGAIN if it would have to wait for the disk. */
export function pwriteNoWait(fd: number, address: number, length: number, offset: number): number {
  setIovec(address, length);
  const n = c.pwritev2(fd, iovecAddress, 1, offset, RWF_NOWAIT);
  return n >= 0 ? n : -lastErrno();
}

/** pwritev2(2) RWF_DSYNC: like pwrite, but returns when the bytes are durable. */
export function pwriteDsync(fd: number, address: number, length: number, offset: number): number {
  setIovec(address, length);
  const n = c.pwritev2(fd, iovecAddress, 1, offset, RWF_DSYNC);
  return n >= 0 ? n : -lastErrno();
}

/** posix_fadvise(2) POSIX_FADV_WILLNEED: starts to read the range into the page cache and does not wait for it. */
export function prefetch(fd: number, offset: number, length: number): void {
  const WILLNEED = 3;
  c.posix_fadvise(fd, offset, length, WILLNEED);
}

/** fsync(2): 0 or −errno. */
export function fsync(fd: number): number {
  return c.fsync(fd) === 0 ? 0 : -lastErrno();
}

/** fdatasync(2): 0 or −errno. */
export function fdatasync(fd: number): number {
  return c.fdatasync(fd) === 0 ? 0 : -lastErrno();
}

/** fallocate(2): 0 or −errno. */
export function fallocate(fd: number, mode: number, offset: number, length: number): number {
  return c.fallocate(fd, mode, offset, length) === 0 ? 0 : -lastErrno();
}

/** fallocate(2) on koffi's thread pool: resolves to 0 or rejects with a SystemCallError. */
export function fallocateAsync(fd: number, mode: number, offset: number, length: number): Promise<void> {
  return new Promise((resolve, reject) => {
    c.fallocate.async(fd, mode, offset, length, (error, result) => {
      if (error) reject(error);
      // koffi keeps the errno of an asynchronous call for its callback
      else if (result !== 0) reject(new SystemCallError('fallocate', lastErrno()));
      else resolve();
    });
  });
}

/**
 * syncfs(2), or fdatasync(2) for a block device, on koffi's thread pool: writes back the dirty pages of the file's file
 * system or of the device.
 * @returns 0, or −errno if fdatasync failed: the kernel reports that error only once per open file description, so no
 *   other user of the description sees it. Errors of syncfs are ignored: they concern the whole file system, and the
 *   next flush of the file still reports the file's own errors.
 */
export function writeBackBelow(fd: number, isBlockDevice: boolean): Promise<number> {
  return new Promise((resolve) => {
    const call = isBlockDevice ? c.fdatasync : c.syncfs;
    call.async(fd, (_, result) => resolve(result !== 0 && isBlockDevice ? -lastErrno() : 0));
  });
}

/**
 * splice(2): moves pages between a pipe and a file; returns a count or −errno. It does not wait for room in a pipe.
 * @param fromPosition address of an 8-byte file offset, which the call advances; 0 for a pipe or device
 */
export function splice(from: number, fromPosition: number, to: number, length: number): number {
  const SPLICE_F_NONBLOCK = 2;
  const n = c.splice(from, fromPosition, to, 0, length, SPLICE_F_NONBLOCK);
  return n >= 0 ? n : -lastErrno();
}

/** A close-on-exec pipe with a capacity of at least `bytes`; null if the system refuses a pipe of that size. */
export function makePipe(bytes: number): { readonly reading: number; readonly writing: number } | null {
  const O_CLOEXEC = 0o2000000;
  const F_SETPIPE_SZ = 1031;
  const fds = new Int32Array(2);
  if (c.pipe2(addressOf(fds), O_CLOEXEC) !== 0) return null;
  const [reading = -1, writing = -1] = fds;
  if (c.fcntl(writing, F_SETPIPE_SZ, 'int', bytes) >= bytes) return { reading, writing };
  closeSync(reading);
  closeSync(writing);
  return null;
}

/** modes of fallocate(2) */
export const FALLOC_FL_KEEP_SIZE = 0x1;
export const FALLOC_FL_PUNCH_HOLE = 0x2;
export const FALLOC_FL_ZERO_RANGE = 0x10;

/** lseek(2): the new position, or −errno. It moves the file position, which no code here relies on. */
export function lseek(fd: number, offset: number, whence: number): number {
  const n = c.lseek(fd, offset, whence);
  return n >= 0 ? n : -lastErrno();
}

/** lseek(2) on koffi's thread pool: for a file whose answer may take long. */
export function lseekAsync(fd: number, offset: number, whence: number): Promise<number> {
  return new Promise((resolve, reject) => {
    c.lseek.async(fd, offset, whence, (error, n) => {
      if (error) reject(error);
      // koffi keeps the errno of an asynchronous call for its callback
      else resolve(n >= 0 ? n : -lastErrno());
    });
  });
}

export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;

// ── memory ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The address of a view's bytes. Keep a reference to the view while the address is used; the bytes never move. */
export function addressOf(view: ArrayBufferView): number {
  return Number(koffi.address(view));
}

/** mlock(2): false if the limit (RLIMIT_MEMLOCK) forbids it. */
export function mlock(address: number, length: number): boolean {
  return c.mlock(address, length) === 0;
}

/**
 * Maps `length` bytes of a memfd, shared with every other process that maps it. Never unmapped.
 * @param offset in the memfd, a multiple of the page size
 */
export function mapShared(fd: number, length: number, offset = 0): ArrayBuffer {
  const PROT_READ_WRITE = 3;
  const MAP_SHARED = 1;
  const address = c.mmap(0, length, PROT_READ_WRITE, MAP_SHARED, fd, offset);
  if (address === -1) throw new SystemCallError('mmap', lastErrno());
  return koffi.view(BigInt(address), length);
}

/** The bytes of shared memory as a plain view: functions of Node and the web that refuse shared memory take it. Keep the memory. */
export function plainView(memory: SharedArrayBuffer, offset: number, length: number): Buffer {
  const address = addressOf(new Uint8Array(memory, offset, length));
  return Buffer.from(koffi.view(BigInt(address), length));
}

/**
 * Maps a part of a file, shared; null if the kernel refuses. A process that touches the mapping beyond the end of the
 * file, or when a page cannot be allocated, is killed by SIGBUS: see populate. Core dumps leave the mapping out.
 * @param offset in the file, a multiple of the page size
 */
export function mapFile(fd: number, offset: number, length: number): number | null {
  const PROT_READ_WRITE = 3;
  const MAP_SHARED = 1;
  const MADV_DONTDUMP = 16;
  const address = c.mmap(0, length, PROT_READ_WRITE, MAP_SHARED, fd, offset);
  if (address === -1) return null;
  c.madvise(address, length, MADV_DONTDUMP);
  return address;
}

/** munmap(2) of a mapping made by mapFile. */
export function unmapFile(address: number, length: number): void {
  check(c.munmap(address, length), 'munmap');
}

/** madvise(2) MADV_DONTNEED: pages of a mapped file keep their bytes but no longer count as memory of this process. */
export function forgetMapped(address: number, length: number): void {
  const MADV_DONTNEED = 4;
  check(c.madvise(address, length, MADV_DONTNEED), 'madvise');
}

/**
 * madvise(2) MADV_POPULATE_WRITE (Linux 5.14): makes mapped pages ready to be written, and allocates holes of the file.
 * @param address a multiple of the page size
 * @returns 0, or −errno if some pages cannot be made ready: EFAULT beyond the end of the file and on a full file system
 */
export function populate(address: number, length: number): number {
  const MADV_POPULATE_WRITE = 23;
  return c.madvise(address, length, MADV_POPULATE_WRITE) === 0 ? 0 : -lastErrno();
}

/** memcpy(3). */
export function copyMemory(to: number, from: number, length: number): void {
  c.memcpy(to, from, length);
}

/** memfd_create(2): an anonymous file in memory, close-on-exec, sealable. */
export function memfdCreate(name: string): number {
  const MFD_CLOEXEC = 1;
  const MFD_ALLOW_SEALING = 2;
  return check(c.memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING), 'memfd_create', name);
}

/** linkat(2): gives an open file a name that is not taken yet. It may be a file without a name (O_TMPFILE). */
export function linkFd(fd: number, path: string): void {
  const AT_FDCWD = -100;
  const AT_SYMLINK_FOLLOW = 0x400;
  check(c.linkat(AT_FDCWD, `/proc/self/fd/${fd}`, AT_FDCWD, path, AT_SYMLINK_FOLLOW), 'linkat', path);
}

/** _exit(2): ends the process at once, also while some of its threads are blocked. */
export function exitAtOnce(status: number): never {
  c._exit(status);
  throw new TypeError('_exit has returned');
}

/** FD_CLOEXEC: programs that this process starts do not get the descriptor. */
export function setCloseOnExec(fd: number): void {
  const F_SETFD = 2;
  const FD_CLOEXEC = 1;
  check(c.fcntl(fd, F_SETFD, 'int', FD_CLOEXEC), 'fcntl F_SETFD');
}

/** The reverse of setCloseOnExec. */
export function keepOnExec(fd: number): void {
  const F_SETFD = 2;
  check(c.fcntl(fd, F_SETFD, 'int', 0), 'fcntl F_SETFD');
}

/**
 * Another descriptor of the same open file description (F_DUPFD), at least `lowest`. Programs started later inherit it.
 */
export function shareFdFrom(fd: number, lowest: number): number {
  const F_DUPFD = 0;
  return check(c.fcntl(fd, F_DUPFD, 'int', lowest), 'fcntl F_DUPFD');
}

/** Sets O_NONBLOCK on an open file description: read(2) without data then fails at once with EAGAIN, else it waits. */
export function setNonBlocking(fd: number, isNonBlocking: boolean): void {
  const F_SETFL = 4;
  check(c.fcntl(fd, F_SETFL, 'int', isNonBlocking ? O_NONBLOCK : 0), 'fcntl F_SETFL');
}

/** Whether O_NONBLOCK is set on the open file description. */
export function isNonBlocking(fd: number): boolean {
  const F_GETFL = 3;
  return (check(c.fcntl(fd, F_GETFL), 'fcntl F_GETFL') & O_NONBLOCK) !== 0;
}

/** Another descriptor of the same open file description, close-on-exec (F_DUPFD_CLOEXEC). */
export function shareFd(fd: number): number {
  const F_DUPFD_CLOEXEC = 1030;
  return check(c.fcntl(fd, F_DUPFD_CLOEXEC, 'int', 3), 'fcntl F_DUPFD_CLOEXEC');
}

export const F_SEAL_SEAL = 0x1;
export const F_SEAL_SHRINK = 0x2;
export const F_SEAL_GROW = 0x4;

export function addSeals(fd: number, seals: number): void {
  const F_ADD_SEALS = 1033;
  check(c.fcntl(fd, F_ADD_SEALS, 'int', seals), 'fcntl F_ADD_SEALS');
}

export function getSeals(fd: number): number {
  const F_GET_SEALS = 1034;
  return check(c.fcntl(fd, F_GET_SEALS), 'fcntl F_GET_SEALS');
}

// ── locks ───────────────────────────────────────────────────────────────────────────────────────────────────────────

const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;

/** struct flock, 32 bytes: type i16@0, whence i16@2, start i64@8, len i64@16, pid i32@24 (0 for OFD calls) */
function flockStruct(type: number, start: number, length: number): Buffer {
  const bytes = Buffer.alloc(32);
  bytes.writeInt16LE(type, 0);
  bytes.writeBigInt64LE(BigInt(start), 8);
  bytes.writeBigInt64LE(BigInt(length), 16);
  return bytes;
}

/** Takes a shared (read) lock of the open file description on a byte range; false if another has a write lock on it. */
export function lockRangeShared(fd: number, start: number, length: number): boolean {
  const result = c.fcntl(fd, F_OFD_SETLK, 'void *', flockStruct(F_RDLCK, start, length));
  if (result === 0) return true;
  const errno = lastErrno();
  if (errno === E.EAGAIN || errno === E.EACCES) return false;
  throw new SystemCallError('fcntl F_OFD_SETLK', errno);
}

/** Gives up this open file description's locks on a byte range. */
export function unlockRange(fd: number, start: number, length: number): void {
  check(c.fcntl(fd, F_OFD_SETLK, 'void *', flockStruct(F_UNLCK, start, length)), 'fcntl F_OFD_SETLK');
}

/** Whether another open file description holds any lock on the byte range. */
export function isRangeLocked(fd: number, start: number, length: number): boolean {
  const bytes = flockStruct(F_WRLCK, start, length);
  check(c.fcntl(fd, F_OFD_GETLK, 'void *', bytes), 'fcntl F_OFD_GETLK');
  return bytes.readInt16LE(0) !== F_UNLCK;
}

/** flock(2) LOCK_EX without waiting: false if another open file description has the lock. */
export function tryFlockExclusive(fd: number): boolean {
  const LOCK_EX_NB = 2 | 4;
  if (c.flock(fd, LOCK_EX_NB) === 0) return true;
  const errno = lastErrno();
  if (errno === E.EAGAIN) return false;
  throw new SystemCallError('flock', errno);
}

/** flock(2) LOCK_UN. */
export function flockRelease(fd: number): void {
  const LOCK_UN = 8;
  check(c.flock(fd, LOCK_UN), 'flock');
}

/** The maximum size of an extended attribute in the kernel. */
const XATTR_LIMIT_BYTES = 1 << 16;

/** getxattr(2); null if the file has no such attribute or its file system has no extended attributes. */
export function readExtendedAttribute(path: string, name: string): Buffer | null {
  const bytes = Buffer.from(new ArrayBuffer(XATTR_LIMIT_BYTES));
  const length = c.getxattr(path, name, addressOf(bytes), bytes.length);
  if (length >= 0) return bytes.subarray(0, length);
  const errno = lastErrno();
  if (errno === E.ENODATA || errno === E.EOPNOTSUPP) return null;
  throw new SystemCallError('getxattr', errno, path);
}

// ── mounts and devices ──────────────────────────────────────────────────────────────────────────────────────────────

export const MS_NOSUID = 0x2;
export const MS_NODEV = 0x4;
export const MNT_FORCE = 0x1;
export const MNT_DETACH = 0x2;

/** The arguments of mount(2). */
export interface MountArguments {
  readonly source: string;
  readonly target: string;
  readonly fileSystemType: string;
  /** MS_… */
  readonly flags: number;
  /** options of the file system, separated by commas */
  readonly data: string;
}

/** mount(2). */
export function mount({ source, target, fileSystemType, flags, data }: MountArguments): void {
  check(c.mount(source, target, fileSystemType, flags, data), 'mount', target);
}

/** umount2(2): 0 or −errno. */
export function umount2(target: string, flags: number): number {
  return c.umount2(target, flags) === 0 ? 0 : -lastErrno();
}

/** ioctl(2) with a pointer to `argument`, which the kernel may change. Returns the result of the call, or −errno. */
export function ioctl(fd: number, request: number, argument: Buffer): number {
  const n = c.ioctl(fd, request, 'void *', argument);
  return n >= 0 ? n : -lastErrno();
}

/** Whether nobody is left who could read what is written to a pipe or a socket; false for other files. See poll(2). */
export function isReaderGone(fd: number): boolean {
  const [POLLERR, POLLHUP] = [0x8, 0x10];
  const asked = new DataView(new ArrayBuffer(8));
  asked.setInt32(0, fd, true);
  if (c.poll(addressOf(asked), 1, 0) <= 0) return false;
  return (asked.getInt16(6, true) & (POLLERR | POLLHUP)) !== 0;
}

/** The backing file of a loop device, with the numbers that stat(2) of that file gives. */
export interface LoopStatus {
  /** st_dev, encoded as stat(2) does */
  dev: bigint;
  ino: bigint;
  /** st_rdev: the device itself if the backing file is a device */
  rdev: bigint;
  readOnly: boolean;
}

/**
 * The backing file of an open loop device (LOOP_GET_STATUS64). Runs on koffi's thread pool, because the kernel asks the
 * file system below, which may be slow or dead. Resolves to null if nothing is bound, rejects with a SystemCallError.
 */
export function loopStatusAsync(fd: number): Promise<LoopStatus | null> {
  const LOOP_GET_STATUS64 = 0x4c05;
  const LO_FLAGS_READ_ONLY = 1;
  // struct loop_info64: device u64@0, inode u64@8, rdevice u64@16, flags u32@52
  const info = Buffer.alloc(232);
  return new Promise((resolve, reject) => {
    c.ioctlAddress.async(fd, LOOP_GET_STATUS64, addressOf(info), (error, result) => {
      const errno = result < 0 ? lastErrno() : 0;
      if (error) reject(error);
      else if (errno === E.ENXIO) resolve(null);
      else if (errno !== 0) reject(new SystemCallError('ioctl LOOP_GET_STATUS64', errno));
      else {
        const [dev, ino, rdev] = [info.readBigUInt64LE(0), info.readBigUInt64LE(8), info.readBigUInt64LE(16)];
        resolve({ dev, ino, rdev, readOnly: (info.readUInt32LE(52) & LO_FLAGS_READ_ONLY) !== 0 });
      }
    });
  });
}

/** The size of a block device in bytes (BLKGETSIZE64). */
export function blockDeviceSize(fd: number): number {
  const BLKGETSIZE64 = 0x80081272;
  const bytes = Buffer.alloc(8);
  const n = ioctl(fd, BLKGETSIZE64, bytes);
  if (n < 0) throw new SystemCallError('ioctl BLKGETSIZE64', -n);
  return Number(bytes.readBigUInt64LE(0));
}

// ── descriptors from other processes ────────────────────────────────────────────────────────────────────────────────

/**
 * A pair of connected Unix sockets (socketpair(2)), close-on-exec.
 * @param keepsMessages keep message boundaries (SOCK_SEQPACKET); else a stream of bytes
 */
export function socketPair(keepsMessages = false): [number, number] {
  const AF_UNIX = 1;
  const SOCK_STREAM = 1;
  const SOCK_SEQPACKET = 5;
  const SOCK_CLOEXEC = 0o2000000;
  const fds = Buffer.alloc(8);
  const type = keepsMessages ? SOCK_SEQPACKET : SOCK_STREAM;
  check(c.socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds), 'socketpair');
  return [fds.readInt32LE(0), fds.readInt32LE(4)];
}

const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x8;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
/** struct cmsghdr: len u64@0, level i32@8, type i32@12, then the descriptors */
const CONTROL_HEADER_BYTES = 16;

/** Sets an option of a socket whose value is an int (setsockopt(2)). */
export function setSocketOption(
  socket: number,
  { level, name, value }: { readonly level: number; readonly name: number; readonly value: number },
): void {
  const buffer = Buffer.alloc(4);
  buffer.writeInt32LE(value);
  check(c.setsockopt(socket, level, name, addressOf(buffer), buffer.length), 'setsockopt');
}

const SO_PEERCRED = 17;

/** The process that listens at the other end of a connected unix socket; 0 if it cannot be seen, or the socket is another one. */
export function peerPid(socket: number): number {
  // struct ucred: pid, uid, gid
  const credentials = new Int32Array(3);
  const length = new Uint32Array([credentials.byteLength]);
  const result = c.getsockopt(socket, SOL_SOCKET, SO_PEERCRED, addressOf(credentials), addressOf(length));
  return result === 0 ? (credentials[0] ?? 0) : 0;
}

const SHUT_WR = 1;

/**
 * Ends what is sent on a connection, also for the other processes that have the socket: the other end reads end of file.
 * Does nothing if it has ended already.
 */
export function endSending(socket: number): void {
  c.shutdown(socket, SHUT_WR);
}

/**
 * A message for sendmsg(2) and recvmsg(2): some bytes, and room for descriptors. All four buffers must stay referenced
 * while the message is used.
 */
interface FdMessage {
  readonly header: Buffer;
  readonly iovec: Buffer;
  readonly data: Buffer;
  readonly control: Buffer;
}

function fdMessage(data: Buffer, fdCount: number): FdMessage {
  // cmsg(3) pads the descriptors to 8 bytes
  const control = Buffer.alloc(CONTROL_HEADER_BYTES + 8 * Math.ceil(fdCount / 2));
  const iovec = Buffer.alloc(16);
  iovec.writeBigUInt64LE(BigInt(addressOf(data)), 0);
  iovec.writeBigUInt64LE(BigInt(data.length), 8);
  // struct msghdr: name ptr@0, namelen u32@8, iov ptr@16, iovlen u64@24, control ptr@32, controllen u64@40,
  // flags i32@48
  const header = Buffer.alloc(56);
  header.writeBigUInt64LE(BigInt(addressOf(iovec)), 16);
  header.writeBigUInt64LE(1n, 24);
  header.writeBigUInt64LE(BigInt(addressOf(control)), 32);
  header.writeBigUInt64LE(BigInt(control.length), 40);
  return { header, iovec, data, control };
}

/** The descriptors that came with a message. */
function fdsOf({ header, control }: FdMessage): number[] {
  const hasFds = header.readBigUInt64LE(40) >= BigInt(CONTROL_HEADER_BYTES + 4);
  if (!hasFds || control.readInt32LE(8) !== SOL_SOCKET || control.readInt32LE(12) !== SCM_RIGHTS) return [];
  const count = (Number(control.readBigUInt64LE(0)) - CONTROL_HEADER_BYTES) / 4;
  return Array.from({ length: count }, (_, i) => control.readInt32LE(CONTROL_HEADER_BYTES + 4 * i));
}

/**
 * Sends bytes with descriptors (SCM_RIGHTS) on a SOCK_SEQPACKET socket. Does not wait for room.
 * @returns 0, or −errno: EAGAIN if the socket is full, ETOOMANYREFS if too many descriptors are in flight
 */
export function sendFds(socket: number, data: Buffer, fds: readonly number[]): number {
  const message = fdMessage(data, fds.length);
  message.control.writeBigUInt64LE(BigInt(CONTROL_HEADER_BYTES + 4 * fds.length), 0);
  message.control.writeInt32LE(SOL_SOCKET, 8);
  message.control.writeInt32LE(SCM_RIGHTS, 12);
  for (const [i, fd] of fds.entries()) message.control.writeInt32LE(fd, CONTROL_HEADER_BYTES + 4 * i);
  const n = c.sendmsg(socket, addressOf(message.header), MSG_DONTWAIT | MSG_NOSIGNAL);
  return n >= 0 ? 0 : -lastErrno();
}

/** A message that sendFds sent. */
export interface ReceivedFds {
  readonly data: Buffer;
  /** close-on-exec */
  readonly fds: readonly number[];
  /** this process had no room for all descriptors; those that did not fit are lost */
  readonly isCut: boolean;
}

/** Receives the next message of sendFds without waiting; null if there is none. */
export function receiveFds(socket: number, maxBytes: number, maxFds: number): ReceivedFds | null {
  const message = fdMessage(Buffer.alloc(maxBytes), maxFds);
  const n = c.recvmsg(socket, addressOf(message.header), MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (n < 0 && lastErrno() !== E.EAGAIN) throw new SystemCallError('recvmsg', lastErrno());
  if (n <= 0) return null;
  const isCut = (message.header.readInt32LE(48) & MSG_CTRUNC) !== 0;
  return { data: message.data.subarray(0, n), fds: fdsOf(message), isCut };
}

/**
 * Waits on koffi's thread pool for one byte with a descriptor (SCM_RIGHTS) on a socket.
 * @returns the descriptor, close-on-exec; null if the other end closed the socket or sent no descriptor
 */
export function receiveFd(socket: number): Promise<number | null> {
  const message = fdMessage(Buffer.alloc(1), 1);
  return new Promise((resolve, reject) => {
    c.recvmsg.async(socket, addressOf(message.header), MSG_CMSG_CLOEXEC, (error, result) => {
      const errno = result < 0 ? lastErrno() : 0;
      // the kernel writes to all four buffers: this use keeps them referenced until here
      const [fd = null] = Object.values(message).every(({ length }: Buffer) => length > 0) ? fdsOf(message) : [];
      if (error) reject(error);
      else if (errno !== 0) reject(new SystemCallError('recvmsg', errno));
      else resolve(result === 0 ? null : fd);
    });
  });
}

// ── asynchronous requests (io_submit(2)) ────────────────────────────────────────────────────────────────────────────

/** glibc has no functions for them; undefined on processors whose numbers we do not know */
const AIO_CALLS = new Map([
  ['x64', { setup: 206, getEvents: 208, submit: 209 }],
  ['arm64', { setup: 0, getEvents: 4, submit: 2 }],
]).get(process.arch);

/** A queue of asynchronous requests (io_setup(2)). */
export interface AioQueue {
  readonly id: number;
  readonly calls: { readonly getEvents: number; readonly submit: number };
  /** the begin of what the kernel shows of the finished requests: head u32@8, tail u32@12 */
  readonly ring: Uint32Array;
}

/** io_setup(2): null if the kernel refuses. @param count how many requests may be under way */
export function makeAioQueue(count: number): AioQueue | null {
  const id = new BigUint64Array(1);
  if (AIO_CALLS === undefined || c.syscall(AIO_CALLS.setup, count, addressOf(id), 0, 0, 0) !== 0) return null;
  return { id: Number(id[0]), calls: AIO_CALLS, ring: new Uint32Array(koffi.view(id[0] ?? 0n, 16)) };
}

/** io_submit(2): how many of the requests have begun, or −errno. @param pointers the address of the addresses of iocbs */
export function submitAio({ id, calls }: AioQueue, count: number, pointers: number): number {
  const n = c.syscall(calls.submit, id, count, pointers, 0, 0);
  return n >= 0 ? n : -lastErrno();
}

/** io_getevents(2) without waiting: how many requests have finished, or −errno. @param events the address of io_events */
export function takeAioEvents({ id, calls }: AioQueue, most: number, events: number): number {
  const n = c.syscall(calls.getEvents, id, 0, most, events, 0);
  return n >= 0 ? n : -lastErrno();
}

/** The same on koffi's thread pool: waits for one at least. */
export function awaitAioEvents({ id, calls }: AioQueue, most: number, events: number): Promise<number> {
  return new Promise((resolve) => {
    c.syscall.async(calls.getEvents, id, 1, most, events, 0, (_, n) => resolve(n >= 0 ? n : -lastErrno()));
  });
}

// ── processes ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** dup2(2): `target` becomes a descriptor of the same open file description as `fd`. */
export function duplicateFd(fd: number, target: number): void {
  check(c.dup2(fd, target), 'dup2');
}

export const RLIMIT_CPU = 0;
export const RLIMIT_FSIZE = 1;
const RLIM_INFINITY = 0xffff_ffff_ffff_ffffn;

/**
 * Raises a resource limit of this process: removes it if the process is privileged, else raises it to the hard limit.
 * @returns the limit that is in force now; null for none
 */
export function raiseLimit(resource: number): number | null {
  // struct rlimit: soft u64@0, hard u64@8
  const limit = Buffer.alloc(16);
  check(c.prlimit(0, resource, 0, addressOf(limit)), 'prlimit');
  const hard = limit.readBigUInt64LE(8);
  for (const value of [RLIM_INFINITY, hard]) {
    limit.writeBigUInt64LE(value, 0);
    limit.writeBigUInt64LE(value, 8);
    if (c.prlimit(0, resource, addressOf(limit), 0) === 0) return value === RLIM_INFINITY ? null : Number(value);
  }
  return Number(hard);
}

/** gettid(2): the kernel's id of the calling thread. */
export function gettid(): number {
  return c.gettid();
}

/** prctl(PR_SET_IO_FLUSHER): false if it is refused (it needs CAP_SYS_RESOURCE). */
export function setIoFlusher(): boolean {
  const PR_SET_IO_FLUSHER = 57;
  return c.prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) === 0;
}
