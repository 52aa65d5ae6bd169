/**
 * Programs that tests run beside themselves. All I/O on a vbd is theirs: a test that waited for its own bus would hang,
 * and so would a program whose bus hangs. So each has a time limit, and at its end the buses below a directory are
 * aborted, which frees whoever waits for them; only then can it be killed.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { until } from '../../system/until.js';

/** How a program ended. */
export interface Outcome {
  /** null where a signal ended it */
  status: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export interface CommandOptions {
  cwd?: string;
  /** on top of this process's own */
  env?: Record<string, string | undefined>;
  /** what it reads from stdin; nothing by default */
  input?: string | Buffer;
  timeoutMs?: number;
  /** the buses below are aborted when the time is up */
  busesBelow?: string;
  /** where they are to be seen, if not in this process's own */
  mountinfo?: string;
}

const DEFAULT_TIMEOUT_MS = 45_000;
/** administrators' programs are not on every user's path */
const PATH = `${process.env.PATH}:/usr/local/sbin:/usr/sbin:/sbin`;

/** Whether the program is installed. */
export function isInstalled(program: string): boolean {
  return PATH.split(':').some((directory) => existsSync(`${directory}/${program}`));
}

/** how long programs may run is said where they are started */
const started = new WeakMap<ChildProcess, CommandOptions>();

/** Starts a program with what all tests want: every program found, messages in English. */
export function start(program: string, args: readonly string[], options: CommandOptions = {}): ChildProcess {
  const env = { ...process.env, PATH, LC_ALL: 'C', ...options.env };
  const cwd = options.cwd === undefined ? {} : { cwd: options.cwd };
  const child = spawn(program, args, { env, stdio: ['pipe', 'pipe', 'pipe'], ...cwd });
  started.set(child, options);
  return child;
}

/** Runs a program to its end, however that is. @throws Error where it cannot be run or takes too long */
export function execute(program: string, args: readonly string[], options: CommandOptions = {}): Promise<Outcome> {
  const child = start(program, args, options);
  child.stdin?.on('error', () => {}).end(options.input ?? '');
  return collect(child);
}

/** What a program that has to succeed prints. @throws Error with its stderr where it does not */
export async function output(program: string, args: readonly string[], options: CommandOptions = {}): Promise<string> {
  const { status, signal, stdout, stderr } = await execute(program, args, options);
  if (status === 0) return stdout;
  throw new Error(`${[program, ...args].join(' ')}\nended with ${signal ?? status}: ${stderr}${stdout}`);
}

/** Resolves when the program and its streams have ended. @throws Error where that takes too long */
export async function collect(child: ChildProcess): Promise<Outcome> {
  const options = started.get(child) ?? {};
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const timer = new AbortController();
  const late = delay(timeoutMs, null, { signal: timer.signal }).catch(() => null);
  const first = await Promise.race([outcomeOf(child), late]).finally(() => timer.abort());
  if (first !== null) return first;
  if (options.busesBelow !== undefined) await abortBuses(options.busesBelow, options.mountinfo);
  child.kill('SIGKILL');
  throw new Error(`still running after ${timeoutMs / 1000} s, its buses were aborted: ${child.spawnargs.join(' ')}`);
}

function outcomeOf(child: ChildProcess): Promise<Outcome> {
  const texts = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]?.setEncoding('utf8').on('data', (text: string) => {
      texts[name] += text;
    });
  }
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status, signal) => resolve({ status, signal, ...texts }));
  });
}

export interface Mount {
  path: string;
  type: string;
  /** minor number of the device, which is also the number of a FUSE connection */
  minor: string;
}

/** The mounts below a directory, told from the kernel's table: none of them is asked. */
export async function mountsBelow(directory: string, mountinfo = '/proc/self/mountinfo'): Promise<Mount[]> {
  const lines = (await readFile(mountinfo, 'utf8')).trimEnd().split('\n');
  // proc(5): id parent major:minor root path options … - type source options
  const mounts = lines.map((line) => {
    const [before = '', after = ''] = line.split(' - ');
    const fields = before.split(' ');
    const path = (fields[4] ?? '').replace(/\\([0-7]{3})/g, (_, octal) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    );
    return { path, type: after.split(' ')[0] ?? '', minor: fields[2]?.split(':')[1] ?? '' };
  });
  return mounts.filter(({ path }) => path.startsWith(`${directory}/`));
}

/** Aborts the FUSE connections below a directory: whoever waits for an answer gets ECONNABORTED. */
export async function abortBuses(directory: string, mountinfo?: string): Promise<void> {
  for (const { type, minor } of await mountsBelow(directory, mountinfo)) {
    if (type.startsWith('fuse')) await writeFile(`/sys/fs/fuse/connections/${minor}/abort`, '1').catch(() => {});
  }
}

/** Waits until the probe gives something other than undefined or false. @throws Error after the limit */
export async function eventually<Found>(
  what: string,
  limitMs: number,
  probe: () => Promise<Found | undefined | false> | Found | undefined | false,
  everyMs = 50,
): Promise<Found> {
  let found: Found | undefined | false;
  const isFound = async (): Promise<boolean> => {
    found = await probe();
    return found !== undefined && found !== false;
  };
  if (await until(isFound, { timeoutMs: limitMs, everyMs })) return found as Found;
  throw new Error(`not within ${limitMs / 1000} s: ${what}`);
}

/** A port of this machine that nobody listens at now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Whether somebody accepts connections at a port of this machine. */
export async function accepts(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  const is = await new Promise<boolean>((resolve) => {
    socket.once('connect', () => resolve(true));
    socket.once('error', () => resolve(false));
  });
  socket.destroy();
  return is;
}
