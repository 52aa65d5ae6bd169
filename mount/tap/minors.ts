/**
 * The minor numbers of tap-ctl. They are files in the runtime directory, so they outlive every process.
 *
 *      RUNTIME/tap/N         an allocated minor: empty, or as JSON the tapdisk that it is attached to
 *      RUNTIME/tap/tapdevN   the path that `allocate` prints: a link to the vbd while it is open, else to nothing
 *
 * A number is taken by creating its file, in one step. The contents of a file are changed under flock(2) on the
 * directory.
 */
import { closeSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { constants as os } from 'node:os';
import { join } from 'node:path';
import { FusetapError } from '../../drivers/errors.js';
import { makeTapDirectory } from '../runtime/bus-place.js';
import { lockDirectory } from '../runtime/lock-directory.js';

/** The tapdisk that a minor is attached to. */
export interface MinorOwner {
  /** the name of its bus */
  readonly bus: string;
  /** the pid of its keeper when the minor was attached */
  readonly pid: number;
}

export interface Minor {
  readonly minor: number;
  readonly owner: MinorOwner | null;
}

/** the number of xvd disks of a bus */
const MINOR_LIMIT = 2 ** 20;

function recordPath(runtimeDir: string, minor: number): string {
  return join(runtimeDir, 'tap', String(minor));
}

/** The path that stands for a minor. */
export function devicePath(runtimeDir: string, minor: number): string {
  return join(runtimeDir, 'tap', `tapdev${minor}`);
}

/** Takes the lowest free number and makes its link. @throws FusetapError DENIED, NO_SPACE */
export async function allocateMinor(runtimeDir: string): Promise<number> {
  await makeTapDirectory(runtimeDir, process.geteuid?.() ?? 0);
  for (let minor = 0; minor < MINOR_LIMIT; minor++) {
    try {
      writeFileSync(recordPath(runtimeDir, minor), '', { flag: 'wx', mode: 0o600 });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') continue;
      throw error;
    }
    pointDevice(runtimeDir, minor, null);
    return minor;
  }
  throw new FusetapError('NO_SPACE', `all ${MINOR_LIMIT} minors are allocated`, { hint: 'tap-ctl free -m MINOR' });
}

/** The allocated minors, by number. */
export function listMinors(runtimeDir: string): Minor[] {
  let names: string[];
  try {
    names = readdirSync(join(runtimeDir, 'tap'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  const numbers = names.filter((name) => /^\d+$/.test(name)).map(Number);
  return numbers.sort((a, b) => a - b).flatMap((minor) => findMinor(runtimeDir, minor) ?? []);
}

/** The minor, or null if it is not allocated. */
export function findMinor(runtimeDir: string, minor: number): Minor | null {
  let text: string;
  try {
    text = readFileSync(recordPath(runtimeDir, minor), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
  return { minor, owner: text === '' ? null : (JSON.parse(text) as MinorOwner) };
}

/** @throws FusetapError NOT_FOUND (ENOENT) */
export function requireMinor(runtimeDir: string, minor: number): Minor {
  const found = findMinor(runtimeDir, minor);
  if (found !== null) return found;
  throw new FusetapError('NOT_FOUND', `minor ${minor} is not allocated`, {
    hint: 'tap-ctl allocate allocates a minor; tap-ctl list lists them',
    errno: os.errno.ENOENT,
  });
}

/** Call it under the lock. Readers see the old record or the new one. */
export function setOwner(runtimeDir: string, minor: number, owner: MinorOwner | null): void {
  const path = recordPath(runtimeDir, minor);
  writeFileSync(`${path}.new`, owner === null ? '' : JSON.stringify(owner), { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

/** Frees the number. Call it under the lock. */
export function removeMinor(runtimeDir: string, minor: number): void {
  rmSync(devicePath(runtimeDir, minor), { force: true });
  rmSync(recordPath(runtimeDir, minor), { force: true });
}

/**
 * Makes the link of a minor lead to a vbd, or to nothing: to a path below a file, where a write cannot create a file.
 */
export function pointDevice(runtimeDir: string, minor: number, path: string | null): void {
  const link = devicePath(runtimeDir, minor);
  rmSync(`${link}.new`, { force: true });
  symlinkSync(path ?? `${minor}/closed`, `${link}.new`);
  renameSync(`${link}.new`, link);
}

/** Runs `body` under the lock on the minors. @throws FusetapError BUSY if another process keeps it for LOCK_LIMIT_MS */
export async function withMinorsLocked<Result>(runtimeDir: string, body: () => Promise<Result>): Promise<Result> {
  await makeTapDirectory(runtimeDir, process.geteuid?.() ?? 0);
  const fd = await lockDirectory(join(runtimeDir, 'tap'), 'the minors');
  try {
    return await body();
  } finally {
    closeSync(fd);
  }
}
