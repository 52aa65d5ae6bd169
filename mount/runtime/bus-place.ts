/**
 * The places of the files of buses. Makes their directories so that no other user can plant files or links in them.
 *
 *      RUNTIME/           0755 for root, else 0700
 *        bus/NAME/        the mount
 *        state/NAME/      0700: control.sock, server.sock, bus.json, log, lock
 *        ram/             0700
 *        tap/             as RUNTIME: minors of tap-ctl, made with the first minor
 *
 * All of it is in one directory that belongs to us and that no other user can write, so nobody can plant a link below
 * it. The path of that directory is resolved once, at the start, because the kernel gives real paths of mounts and
 * files.
 */
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  type Stats,
} from 'node:fs';
import { basename, dirname, isAbsolute, join, resolve } from 'node:path';
import { codeOfErrno, FusetapError } from '../../drivers/errors.js';
import { quoted } from '../../drivers/quote.js';
import { builtin } from '../../system/builtin.js';
import { refuseForeignAncestors } from './directory-check.js';

/** The longest name of a bus, in characters. */
export const BUS_NAME_LIMIT = 64;

/** A bus and its files, whether it runs or not. */
export interface BusPlace {
  /** NAME in state/NAME; for a user's own directory `dir-` and a hash of its real path */
  readonly name: string;
  /** the mount: absolute */
  readonly path: string;
  readonly stateDir: string;
  readonly runtimeDir: string;
  /** the mount is a user's own directory: never made and never removed */
  readonly ownDirectory: boolean;
}

/**
 * The real path of the runtime directory: `$FUSETAP_RUNTIME_DIR`, else /run/fusetap for root, else
 * `$XDG_RUNTIME_DIR/fusetap`, else /tmp/fusetap-UID if it is ours and 0700. It need not exist.
 * @throws FusetapError DENIED if the directory in /tmp exists and is not ours with mode 0700
 */
export function runtimeDir(env: NodeJS.ProcessEnv, uid: number): string {
  if (env.FUSETAP_RUNTIME_DIR) return realPlace(env.FUSETAP_RUNTIME_DIR);
  if (uid === 0) return realPlace('/run/fusetap');
  // the XDG specification says: ignore a path that is not absolute
  const session = env.XDG_RUNTIME_DIR;
  if (session && isAbsolute(session)) return realPlace(join(session, 'fusetap'));
  const path = `/tmp/fusetap-${uid}`;
  refuseUntrusted(path, uid);
  return realPlace(path);
}

/** The path with the symbolic links of its existing part resolved. */
export function realPlace(path: string): string {
  const absolute = resolve(path);
  try {
    return realpathSync.native(absolute);
  } catch {
    // the caller makes or refuses a path that does not exist or cannot be resolved
    return absolute === '/' ? absolute : join(realPlace(dirname(absolute)), basename(absolute));
  }
}

function refuseUntrusted(path: string, uid: number): void {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return;
  if (stats.isDirectory() && stats.uid === uid && (stats.mode & 0o777) === 0o700) return;
  throw new FusetapError('DENIED', `the runtime directory is not a directory of our own with mode 0700: ${path}`, {
    hint: 'set FUSETAP_RUNTIME_DIR to a directory that only you can write',
    path,
  });
}

/**
 * The bus that a word names: a NAME (letters, digits, `.`, `_`, `-`), or a directory, which has a `/`. A name of the
 * form `dir-HASH`, as `ls` prints it, means the directory that the hash was made from.
 * @throws FusetapError USAGE for a word that is not a name, NOT_FOUND for a directory that does not exist
 */
export async function resolveBus(word: string, runtime: string): Promise<BusPlace> {
  if (!word.includes('/')) return namedBus(word, runtime);
  const path = resolve(word);
  if (realPlace(dirname(path)) === join(runtime, 'bus')) return namedBus(basename(path), runtime);
  const real = realDirectory(path);
  const name = nameOfDirectory(real);
  return { name, path: real, stateDir: join(runtime, 'state', name), runtimeDir: runtime, ownDirectory: true };
}

/** The name of the bus on a user's own directory. @param path real */
export function nameOfDirectory(path: string): string {
  return `dir-${builtin.crypto.createHash('sha256').update(path).digest('hex').slice(0, 16)}`;
}

function namedBus(name: string, runtime: string): BusPlace {
  if (!isBusName(name)) {
    throw new FusetapError('USAGE', `not a name of a bus: ${quoted(name)}`, {
      hint: `at most ${BUS_NAME_LIMIT} letters, digits, ".", "_" and "-"; a directory is given with a "/"`,
    });
  }
  const stateDir = join(runtime, 'state', name);
  const ownDirectory = /^dir-[0-9a-f]{16}$/.test(name);
  const path = ownDirectory ? recordedPath(name, stateDir) : join(runtime, 'bus', name);
  return { name, path, stateDir, runtimeDir: runtime, ownDirectory };
}

/** Whether a word can be the name of a bus. */
export function isBusName(word: string): boolean {
  return word.length <= BUS_NAME_LIMIT && /^[A-Za-z0-9._-]+$/.test(word) && word !== '.' && word !== '..';
}

/** The directory of a bus that is named by its hash, from the record that its keeper wrote. */
function recordedPath(name: string, stateDir: string): string {
  try {
    const record = JSON.parse(readFileSync(join(stateDir, 'bus.json'), 'utf8')) as { path?: unknown };
    if (typeof record.path === 'string') return record.path;
  } catch {
    // thrown below: the caller does not distinguish a missing bus from a bus without a record
  }
  throw new FusetapError('NOT_FOUND', `no bus ${name}: its directory is not known`, {
    hint: 'give the directory itself: --bus DIR',
  });
}

/** The real path, found without a call that the directory itself must answer: it may be a bus that does not answer. */
function realDirectory(path: string): string {
  try {
    return realpathSync.native(path);
  } catch (error) {
    const { code, errno } = error as NodeJS.ErrnoException;
    if (code === 'ENOTCONN') return join(realpathSync.native(dirname(path)), basename(path));
    throw new FusetapError(codeOfErrno(Math.abs(errno ?? 0)), `no directory for a bus: ${path}: ${code}`, {
      hint: code === 'ENOENT' ? `mkdir -p ${path}` : undefined,
      path,
      cause: error,
    });
  }
}

/** The names in state/, sorted: running buses, and dead buses whose files were left. */
export function listBusNames(runtime: string): string[] {
  try {
    return readdirSync(join(runtime, 'state')).filter(isBusName).sort();
  } catch (error) {
    const { code, errno } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return [];
    throw new FusetapError(codeOfErrno(Math.abs(errno ?? 0)), `cannot list buses: ${runtime}: ${code}`, {
      path: runtime,
      cause: error,
    });
  }
}

/**
 * Makes the directories for the files of a bus with their modes, and checks those that exist. The keeper makes the
 * directory of the mount.
 * @throws FusetapError DENIED if a directory is not ours, is a link, or others can write to it
 */
export async function makeBusDirectories({ runtimeDir: runtime, stateDir }: BusPlace, uid: number): Promise<void> {
  await makeRuntimeDirectory(runtime, uid);
  for (const part of ['bus', 'state', 'ram']) {
    makeDirectory(join(runtime, part), part === 'bus' ? modeFor(uid) : 0o700, uid);
  }
  makeDirectory(stateDir, 0o700, uid);
}

/**
 * Makes the directory of the mount. Call it under the lock on the bus. Makes no call on a file system mounted there.
 */
export function makeMountpoint({ path, ownDirectory }: BusPlace): void {
  if (!ownDirectory && mkdir(path, 0o700)) chmodSync(path, 0o700);
}

/** Makes the directory of tap-ctl's minors. @throws FusetapError DENIED, as makeBusDirectories */
export async function makeTapDirectory(runtime: string, uid: number): Promise<void> {
  await makeRuntimeDirectory(runtime, uid);
  makeDirectory(join(runtime, 'tap'), modeFor(uid), uid);
}

const modeFor = (uid: number): number => (uid === 0 ? 0o755 : 0o700);

/** Checks existing directories before it makes new ones in them. */
async function makeRuntimeDirectory(runtime: string, uid: number): Promise<void> {
  const missing: string[] = [];
  let above = dirname(runtime);
  for (; !existsSync(above); above = dirname(above)) missing.unshift(above);
  await refuseForeignAncestors(runtime, realDirectory(above), uid);
  for (const path of missing) mkdir(path, 0o755);
  makeDirectory(runtime, modeFor(uid), uid);
}

function makeDirectory(path: string, mode: number, uid: number): void {
  if (mkdir(path, mode)) {
    // the umask may have removed bits of the mode
    chmodSync(path, mode);
    return;
  }
  const stats = lstatSync(path, { throwIfNoEntry: false });
  // removed meanwhile by a keeper that ends: the caller tries again
  if (stats !== undefined) refuseForeign(path, stats, uid);
}

function refuseForeign(path: string, stats: Stats, uid: number): void {
  const why = stats.isSymbolicLink()
    ? 'it is a symbolic link'
    : !stats.isDirectory()
      ? 'it is not a directory'
      : stats.uid !== uid
        ? `it belongs to uid ${stats.uid}, we are ${uid}`
        : (stats.mode & 0o022) !== 0
          ? `others can write it (mode ${(stats.mode & 0o7777).toString(8)})`
          : undefined;
  if (why === undefined) return;
  throw new FusetapError('DENIED', `cannot use the directory ${path}: ${why}`, {
    hint: 'set FUSETAP_RUNTIME_DIR to a directory that only you can write',
    path,
  });
}

/** @returns false if a file or directory of that name exists */
function mkdir(path: string, mode: number): boolean {
  try {
    mkdirSync(path, { mode });
    return true;
  } catch (error) {
    const { code, errno } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return false;
    throw new FusetapError(codeOfErrno(Math.abs(errno ?? 0)), `cannot make the directory ${path}: ${code}`, {
      hint: 'set FUSETAP_RUNTIME_DIR to a directory that only you can write',
      path,
      cause: error,
    });
  }
}
