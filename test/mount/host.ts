/** What the tests of images and holders do to the machine: programs, loop devices, mounts, processes that hold files. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { mkdir, open, realpath } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Test } from 'tap';
import { dir } from 'tmp-promise';
import { MNT_DETACH, MNT_FORCE, mount, umount2 } from '../../system/libc.js';
import { readMounts } from '../../system/proc.js';

const execute = promisify(execFile);

/** Runs a program to its end; its stdout without the last line end. Throws where it fails. */
export async function run(program: string, ...args: string[]): Promise<string> {
  const { stdout } = await execute(program, args, { timeout: 20_000 });
  return stdout.trimEnd();
}

/** A new directory, without symbolic links in its path, that goes with the test. */
export async function scratch(t: Test): Promise<string> {
  const { path, cleanup } = await dir({ unsafeCleanup: true });
  t.teardown(cleanup);
  return realpath(path);
}

/** A sparse file in a new directory. */
export async function makeFile(t: Test, sizeBytes = 1 << 20, name = 'disk.img'): Promise<string> {
  const path = join(await scratch(t), name);
  const file = await open(path, 'wx');
  await file.truncate(sizeBytes);
  await file.close();
  return path;
}

/** A new loop device over the file, as `/dev/loop0`. */
export async function attachLoop(t: Test, path: string, ...options: string[]): Promise<string> {
  const loop = await run('losetup', '--find', '--show', ...options, path);
  t.teardown(() => run('losetup', '-d', loop));
  return loop;
}

/** Mounts, and unmounts after the test: `mountAt(t, where, '--bind', what)`. Makes the directory where it is missing. */
export async function mountAt(t: Test, where: string, ...args: string[]): Promise<string> {
  await mkdir(where, { recursive: true }).catch(() => {});
  await run('mount', ...args, where);
  t.teardown(() => run('umount', where));
  return where;
}

/** A FUSE mount that nobody serves: whoever asks it anything hangs. @returns its device, as `0:52` */
export async function mountDeadBus(t: Test, at: string): Promise<string> {
  await mkdir(at, { recursive: true });
  const device = await open('/dev/fuse', 'r+');
  mount({
    source: 'fusetap-test',
    target: at,
    fileSystemType: 'fuse',
    flags: 0,
    data: `fd=${device.fd},rootmode=40000,user_id=0,group_id=0`,
  });
  t.teardown(async () => {
    umount2(at, MNT_FORCE);
    umount2(at, MNT_DETACH);
    await device.close();
  });
  return (await readMounts('self')).find(({ mountpoint }) => mountpoint === at)?.dev ?? '';
}

/** Runs a Node program in a child until the test ends; resolves when it has printed `ready`. `process.argv[1]` … are args. */
export async function inChild(t: Test, program: string, args: string[], wrapper: string[] = []): Promise<number> {
  const command = [...wrapper, process.execPath, '--input-type=module', '-e', program, ...args];
  const child = spawn(command[0] as string, command.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] });
  t.teardown(() => endChild(child));
  await sawOutput(child, 'ready');
  return child.pid as number;
}

export async function endChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'exit');
}

/** Resolves when the child has printed the text, rejects when it ends before. */
export async function sawOutput(child: ChildProcess, text: string): Promise<void> {
  let output = '';
  await new Promise<void>((resolve, reject) => {
    child.once('exit', () => reject(new Error(`the child ended, having printed: ${output}`)));
    child.stdout?.on('data', (piece: Buffer) => {
      output += piece.toString();
      if (output.includes(text)) resolve();
    });
  });
}

/** Runs work that may give up the rights of root with seteuid(2), in a directory that everybody may write. */
export async function asOtherUser(t: Test, work: (directory: string) => Promise<unknown>): Promise<void> {
  // the directories above tmpdir() may be closed to others
  const directory = mkdtempSync('/tmp/fusetap-other-user-');
  t.teardown(() => rmSync(directory, { recursive: true }));
  chmodSync(directory, 0o777);
  try {
    await work(directory);
  } finally {
    process.seteuid?.(0);
  }
}

/** the reason to skip what needs root, or false */
export const needsRoot: string | false = process.getuid?.() === 0 ? false : 'needs root (losetup, mount)';

/** The reason to skip what needs root and a program, or false. */
export async function needsRootAnd(name: string): Promise<string | false> {
  return needsRoot || needsProgram(name);
}

/** The reason to skip what needs a program, or false. */
export async function needsProgram(name: string): Promise<string | false> {
  const found = await execute('sh', ['-c', `command -v ${name}`]).then(
    () => true,
    () => false,
  );
  return found ? false : `needs ${name}`;
}
