/**
 * The place of the torture: a directory with
 *
 *      runtime/    the runtime directory, a tmpfs of a few megabytes, so that it can be filled
 *      package/    a copy of the built package, from which the buses run, so that it can be moved away
 *      node        a copy of the node that runs this, for the same reason
 *      images/     the disks
 *
 * Commands run from the package that this file is part of: only the files of the buses are moved away.
 */
import { constants, copyFile, cp, mkdir, mkdtemp, open, readdir, readFile, realpath, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { readMounts, readStartTime } from '../../../../system/proc.js';
import { runCommand } from '../../bench/command.js';
import type { Undo } from '../../bench/undo.js';
import { busProcesses } from '../holdings.js';
import { Pace } from './pace.js';
import type { Person } from './person.js';

const ROOT = fileURLToPath(new URL('../../../../../', import.meta.url));
const ROOMS = ['chunks', 'cli', 'mount'];
const RUNTIME_BYTES = 16 << 20;
/** few inodes, so that it can run out of these as well */
const RUNTIME_FILES = 2_000;
const GONE_MS = 15_000;
const REMOVAL_MS = 120_000;

/** The command line of the package that this file is part of. */
export const CLI = join(ROOT, 'dist/cli/main.cjs');

export interface Stage {
  readonly directory: string;
  readonly runtimeDir: string;
  readonly packageDir: string;
  readonly node: string;
  readonly person: Person;
  readonly pace: Pace;
  /** records what was made */
  readonly undo: Undo;
  /** Makes an empty image that the user owns. @param directory default: images/ */
  image(name: string, sizeBytes: number, directory?: string): Promise<string>;
  /** Makes a new directory that the user owns. */
  place(name: string): Promise<string>;
}

/** Makes the directory; `undo` removes everything in it, buses first. */
export async function setStage(person: Person, undo: Undo): Promise<Stage> {
  const directory = await realpath(await mkdtemp(join(tmpdir(), 'fusetap-torture-')));
  undo.defer(() => runCommand('rm', ['-rf', '--one-file-system', directory], { timeoutMs: REMOVAL_MS }));
  undo.defer(() => unmountBelow(directory));
  await runCommand('chmod', ['0755', directory]);
  const [runtimeDir, packageDir, node] = ['runtime', 'package', 'node'].map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ];
  const place = async (name: string): Promise<string> => {
    const path = join(directory, name);
    await mkdir(path, { recursive: true });
    person.give(path);
    return path;
  };
  await Promise.all([place('runtime'), place('images')]);
  const options = [`size=${RUNTIME_BYTES}`, `nr_inodes=${RUNTIME_FILES}`, 'mode=0755', ...person.mountOptions];
  await runCommand('mount', ['-t', 'tmpfs', '-o', options.join(','), 'fusetap-torture', runtimeDir]);
  undo.defer(() => endProcesses(runtimeDir));
  undo.defer(() => abortBuses(directory));
  await copyPackage(packageDir);
  await copyFile(process.execPath, node, constants.COPYFILE_FICLONE);
  const image = async (name: string, sizeBytes: number, where = join(directory, 'images')): Promise<string> => {
    const path = join(where, name);
    const file = await open(path, 'wx', 0o644);
    await file.truncate(sizeBytes);
    await file.close();
    person.give(path);
    return path;
  };
  const pace = new Pace(CLI);
  await pace.measure();
  return { directory, runtimeDir, packageDir, node, person, pace, undo, image, place };
}

async function copyPackage(packageDir: string): Promise<void> {
  await mkdir(join(packageDir, 'dist'), { recursive: true });
  const copies = ROOMS.map((room) => cp(join(ROOT, 'dist', room), join(packageDir, 'dist', room), { recursive: true }));
  await Promise.all([...copies, copyFile(join(ROOT, 'package.json'), join(packageDir, 'package.json'))]);
  await symlink(join(ROOT, 'node_modules'), join(packageDir, 'node_modules'));
}

/** Frees the processes that wait for the buses below: they get ECONNABORTED. */
export async function abortBuses(directory: string): Promise<void> {
  for (const { mountpoint, type, dev } of await readMounts('self')) {
    if (!mountpoint.startsWith(`${directory}/`) || !type.startsWith('fuse')) continue;
    const file = await open(`/sys/fs/fuse/connections/${dev.split(':')[1]}/abort`, 'w').catch(() => null);
    await file?.write('1').catch(() => {});
    await file?.close();
  }
}

/** Kills the keepers and servers of the runtime directory, and waits until they are gone. */
export async function endProcesses(runtimeDir: string): Promise<void> {
  const deadline = Date.now() + GONE_MS;
  for (;;) {
    const processes = await busProcesses(runtimeDir);
    if (processes.length === 0) return;
    if (Date.now() > deadline) throw new Error(`still there: ${processes.map(({ pid }) => pid)}`);
    for (const { pid } of processes) kill(pid, 'SIGKILL');
    await delay(50);
  }
}

/** Sends a signal to a process that may have ended. */
export function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Whether the process runs: it is neither gone nor a zombie. */
export function isAlive(pid: number): boolean {
  return readStartTime(pid) !== null;
}

export async function unmountBelow(directory: string): Promise<void> {
  const mounts = (await readMounts('self')).filter(({ mountpoint }) => mountpoint.startsWith(`${directory}/`));
  for (const { mountpoint } of mounts.reverse()) {
    await runCommand('umount', [mountpoint]).catch(() => runCommand('umount', ['-l', mountpoint]));
  }
}

/** The files below the directory that loop devices use. */
export async function loopsBelow(directory: string): Promise<string[]> {
  const names = (await readdir('/sys/block')).filter((name) => name.startsWith('loop'));
  const loops = names.map(async (name) => {
    const file = await readFile(`/sys/block/${name}/loop/backing_file`, 'utf8').catch(() => '');
    return file.startsWith(`${directory}/`) ? [file.trim()] : [];
  });
  return (await Promise.all(loops)).flat();
}
