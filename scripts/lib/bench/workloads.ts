/**
 * Typical work with a disk: an ext4 on a loop device on the target, and a program that works in it. Measures the time
 * of the program and of flushing everything that it wrote to the disk.
 */
import { mkdir, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { isInstalled, runCommand } from './command.js';
import type { WorkloadJob } from './jobs.js';
import type { Undo } from './undo.js';

const SMALL_FILES = resolve(import.meta.dirname, './small-files.js');
const TIMEOUT_MS = 120_000;
/** each in a transaction of its own, so each is synced */
const SQLITE_COMMITS = 1000;
const SQLITE_ROWS = 300_000;

/** Why this machine cannot run it, or null. */
export async function findMissingFor({ name }: WorkloadJob): Promise<string | null> {
  if (process.geteuid?.() !== 0) return 'mounting takes root';
  const programs = ['losetup', 'mkfs.ext4', 'mount', ...(name === 'sqlite' ? ['sqlite3'] : [])];
  for (const program of programs) if (!(await isInstalled(program))) return `${program} is not installed`;
  return null;
}

/** The place where a workload runs. */
export interface WorkloadPlace {
  /** the file that is the disk */
  readonly devicePath: string;
  /** for the mount point and unpacked files */
  readonly workDirectory: string;
  readonly undo: Undo;
  readonly signal: AbortSignal;
}

/** Makes the file system, runs the workload and removes everything. Returns the seconds that the workload took. */
export async function runWorkload({ name }: WorkloadJob, place: WorkloadPlace): Promise<number> {
  const { devicePath, workDirectory, undo, signal } = place;
  const tree = join(workDirectory, 'tree.tar');
  if (name === 'untar') await makeTree(tree, workDirectory, signal);
  const mountpoint = join(workDirectory, 'mnt');
  await mkdir(mountpoint, { recursive: true });
  const loop = (await runCommand('losetup', ['--find', '--show', devicePath])).trim();
  undo.defer(() => runCommand('losetup', ['--detach', loop]));
  await runCommand('mkfs.ext4', ['-q', '-F', '-E', 'lazy_itable_init=0,lazy_journal_init=0', loop], {
    timeoutMs: TIMEOUT_MS,
  });
  await runCommand('mount', ['-t', 'ext4', loop, mountpoint]);
  undo.defer(() => runCommand('umount', [mountpoint], { timeoutMs: TIMEOUT_MS }));
  signal.throwIfAborted();
  const started = performance.now();
  await work(name, mountpoint, tree, signal);
  await runCommand('sync', ['--file-system', mountpoint], { timeoutMs: TIMEOUT_MS, signal });
  return (performance.now() - started) / 1000;
}

async function work(name: WorkloadJob['name'], mountpoint: string, tree: string, signal: AbortSignal): Promise<void> {
  const options = { timeoutMs: TIMEOUT_MS, signal };
  if (name === 'untar') await runCommand('tar', ['-xf', tree, '-C', mountpoint], options);
  else if (name === 'small-files') await runCommand(process.execPath, [SMALL_FILES, 'all', mountpoint], options);
  else await runCommand('sqlite3', [join(mountpoint, 'a.db')], { ...options, input: sqliteScript() });
}

/** Makes a tar file of a tree of small files, once per run. */
async function makeTree(tar: string, workDirectory: string, signal: AbortSignal): Promise<void> {
  if ((await runCommand('find', [tar, '-maxdepth', '0']).catch(() => '')) !== '') return;
  const directory = join(workDirectory, 'tree');
  await mkdir(directory);
  await runCommand(process.execPath, [SMALL_FILES, 'create', directory], { signal });
  await runCommand('tar', ['-cf', tar, '-C', directory, '.'], { signal });
  await rm(directory, { recursive: true });
}

function sqliteScript(): string {
  const lines = ['create table t (id integer primary key, text text);'];
  for (let n = 0; n < SQLITE_COMMITS; n++) lines.push(`insert into t (text) values ('row ${n}');`);
  lines.push(
    `with recursive n(i) as (select 1 union all select i + 1 from n where i < ${SQLITE_ROWS})`,
    "insert into t (text) select hex(i * 7919) || ' a line of text of common length' from n;",
    'create index by_text on t (text);',
    'select count(*) from t where text > 5;',
  );
  return lines.join('\n');
}
