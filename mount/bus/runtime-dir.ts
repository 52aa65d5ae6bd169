/**
 * Where the files of buses are, and how their directories are made so that nobody else can plant anything in them.
 *
 *      RUNTIME/           0755 for root, else 0700
 *        bus/NAME/        the mount
 *        state/NAME/      0700: control.sock, server.sock, bus.json, log, lock
 *        ram/             0700
 *        tap/             as RUNTIME: minors of tap-ctl, made by the first of them
 *
 * All of it lies in one directory that is ours and that nobody else can write, so below that no link can be planted.
 */
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  type Stats,
  statSync,
} from 'node:fs';
import { basename, dirname, isAbsolute, join, resolve } from 'node:path';
import { codeOfErrno, FusetapError, quoted } from '../../drivers/errors.js';
import { isInUserNamespace } from '../../system/proc.js';

/** The longest name of a bus, in characters. */
export const BUS_NAME_LIMIT = 64;

/** A bus and its files, whether it runs or not. */
export interface BusPlace {
  /** as in state/NAME; for a user's own directory `dir-` and a hash of its real path */
  readonly name: string;
  /** the mount: absolute */
  readonly path: string;
  readonly stateDir: string;
  readonly runtimeDir: string;
  /** the mount is a user's own directory: never made and never removed */
  readonly ownDirectory: boolean;
}

/**
 * The runtime directory: `$FUSETAP_RUNTIME_DIR`, else /run/fusetap for root, else `$XDG_RUNTIME_DIR/fusetap`, else
 * /tmp/fusetap-UID if it is ours and 0700. It need not exist.
 * @throws FusetapError DENIED where the one in /tmp is not to be trusted
 */
export function runtimeDir(env: NodeJS.ProcessEnv, uid: number): string {
  if (env.FUSETAP_RUNTIME_DIR) return resolve(env.FUSETAP_RUNTIME_DIR);
  if (uid === 0) return '/run/fusetap';
  // the XDG specification: a path that is not absolute is to be ignored
  const session = env.XDG_RUNTIME_DIR;
  if (session && isAbsolute(session)) return join(session, 'fusetap');
  const path = `/tmp/fusetap-${uid}`;
  refuseUntrusted(path, uid);
  return path;
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
 * The bus that a word means: a NAME (letters, digits, `.`, `_`, `-`), or a directory, which has a `/`. A name of the
 * form `dir-HASH`, as `ls` prints it, means the directory it was made from.
 * @throws FusetapError USAGE for a word that is no name, NOT_FOUND for a directory that is missing
 */
export async function resolveBus(word: string, runtime: string): Promise<BusPlace> {
  if (!word.includes('/')) return namedBus(word, runtime);
  const path = resolve(word);
  if (dirname(path) === join(runtime, 'bus')) return namedBus(basename(path), runtime);
  const real = realDirectory(path);
  const { createHash } = await import('node:crypto');
  const name = `dir-${createHash('sha256').update(real).digest('hex').slice(0, 16)}`;
  return { name, path: real, stateDir: join(runtime, 'state', name), runtimeDir: runtime, ownDirectory: true };
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

/** The directory of a bus that was named by its hash: its keeper wrote it down. */
function recordedPath(name: string, stateDir: string): string {
  try {
    const record = JSON.parse(readFileSync(join(stateDir, 'bus.json'), 'utf8')) as { path?: unknown };
    if (typeof record.path === 'string') return record.path;
  } catch {
    // said below: a bus that is not there and one without a record are the same to the caller
  }
  throw new FusetapError('NOT_FOUND', `no bus ${name}: it is not known which directory that is`, {
    hint: 'give the directory itself: --bus DIR',
  });
}

/** The real path, found without asking the directory itself, which may be a bus that does not answer. */
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

/** The names under state/, sorted: buses that run, and what dead ones left. */
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
 * Makes the directories that a bus needs, with their modes, and checks those that are there.
 * @throws FusetapError DENIED where a directory is not ours, is a link, or others can write it
 */
export function makeBusDirectories(place: BusPlace, uid: number): void {
  const open = uid === 0 ? 0o755 : 0o700;
  const { runtimeDir: runtime } = place;
  makeDirectory(runtime, open, uid, { parents: true });
  for (const part of ['bus', 'state', 'ram']) makeDirectory(join(runtime, part), part === 'bus' ? open : 0o700, uid);
  makeDirectory(place.stateDir, 0o700, uid);
  if (!place.ownDirectory) makeDirectory(place.path, 0o700, uid, { mayBeMount: true });
}

/** Makes the directory of tap-ctl's minors. @throws FusetapError DENIED, as makeBusDirectories */
export function makeTapDirectory(runtime: string, uid: number): void {
  const open = uid === 0 ? 0o755 : 0o700;
  makeDirectory(runtime, open, uid, { parents: true });
  makeDirectory(join(runtime, 'tap'), open, uid);
}

function makeDirectory(
  path: string,
  mode: number,
  uid: number,
  { parents = false, mayBeMount = false }: { parents?: boolean; mayBeMount?: boolean } = {},
): void {
  if (parents) {
    mkdir(dirname(path), 0o755, true);
    refuseForeignAncestors(path, uid);
  }
  if (mkdir(path, mode, false)) {
    // the umask took from the mode
    chmodSync(path, mode);
  } else if (!mayBeMount) {
    const stats = lstatSync(path, { throwIfNoEntry: false });
    // gone again: a keeper that leaves takes its directory with it, and the caller tries again
    if (stats !== undefined) refuseForeign(path, stats, uid);
  }
}

function refuseForeign(path: string, stats: Stats, uid: number): void {
  const why = stats.isSymbolicLink()
    ? 'it is a symbolic link'
    : !stats.isDirectory()
      ? 'it is no directory'
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

/** in a user namespace, what belongs to a user outside of it, as `/` */
const UNMAPPED = 65534;

/** Whoever can rename a directory above ours could put another in its place. */
function refuseForeignAncestors(path: string, uid: number): void {
  let ancestor = realDirectory(dirname(path));
  for (;;) {
    const stats = statSync(ancestor);
    const sticky = (stats.mode & 0o1000) !== 0;
    const foreign = ![0, uid].includes(stats.uid) && !(stats.uid === UNMAPPED && isInUserNamespace());
    if (foreign || ((stats.mode & 0o002) !== 0 && !sticky)) {
      throw new FusetapError('DENIED', `cannot use the directory ${path}: others can replace ${ancestor}`, {
        hint: 'set FUSETAP_RUNTIME_DIR to a directory that only you can write',
        path,
      });
    }
    if (ancestor === '/') return;
    ancestor = dirname(ancestor);
  }
}

/** @returns whether the directory was made; false where something of that name is there */
function mkdir(path: string, mode: number, recursive: boolean): boolean {
  try {
    mkdirSync(path, { mode, recursive });
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
