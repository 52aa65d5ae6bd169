/**
 * Starts the keeper of a bus: a process of its own, which outlives the command that started it.
 *
 *      command ──spawn──► main.js {bus, path, …}
 *              ◄──fd 3─── one line: {"ok":true,"pid":N} or {"error":…}
 *
 * Where systemd runs, the keeper is started in a scope of its own, which outlives the unit of the command, too.
 */
import type { ChildProcess, StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fstatSync, readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { FusetapError, type PlainError, toFusetapError } from '../../drivers/errors.js';
import { runsSystemd } from '../../system/systemd.js';
import { within } from '../../system/within.js';
import type { BusWishes, TransportName } from '../control/interface.js';
import { type BusPlace, makeBusDirectories } from '../runtime/bus-place.js';
import type { Lifeline } from '../runtime/lifeline.js';
import { openLog } from '../runtime/log-line.js';
import { BUS_NODE_OPTIONS, keeperEnvironment } from '../runtime/node-options.js';
import type { BusScope } from '../systemd/bus-scope.js';

/** how long a keeper may take to load and mount before it is killed */
const START_LIMIT_MS = 120_000;
/** how long systemd may take to make a scope: longer, and the keeper starts without one */
const SCOPE_LIMIT_MS = 15_000;

/** The one argument of main.js, as JSON. */
export interface KeeperArgument {
  bus: string;
  /** the mount */
  path: string;
  stateDir: string;
  runtimeDir: string;
  /** the mount is a user's own directory: not to be removed */
  ownDirectory: boolean;
  /** the bus stays when it has no vbds */
  persistent: boolean;
  transport: TransportName;
  /** other users may use the bus */
  allowOther: boolean;
  /** descriptor 4 tells when the process that the bus is for has ended; if omitted, the bus is for everybody */
  lifeline?: boolean;
}

export interface StartOptions extends Readonly<BusWishes> {
  readonly persistent: boolean;
  /** if the bus is for this process alone: kept open as long as the process lives */
  readonly lifeline?: Lifeline | undefined;
  /** called when the keeper is spawned, and takes a while to load */
  readonly whileItLoads?: () => void;
  /** the keeper's program, for tests */
  readonly program?: string;
  /** how long it may take, for tests */
  readonly limitMs?: number;
}

type Report = { ok: true; pid: number } | { error: PlainError };

/**
 * Makes the directories of the bus and starts its keeper. Resolves when the bus is mounted and answers.
 * @throws FusetapError what the keeper reported (see isAlreadyRunning), or FAILED with the last line of its log
 */
export async function startKeeper(place: BusPlace, options: StartOptions): Promise<{ pid: number }> {
  await makeBusDirectories(place, process.geteuid?.() ?? 0);
  const log = openBusLog(place);
  try {
    const { size } = fstatSync(log);
    const child = await spawnKeeper(place, options, log);
    options.lifeline?.hold(child.stdio[4] as Socket);
    options.whileItLoads?.();
    const report = await readReport(child, options.limitMs ?? START_LIMIT_MS).catch(async (error: unknown) => {
      const reason = diedSilently(place, size, error);
      // if the package is being replaced, this code may be missing too
      await import('../runtime/bus-lock.js').then(
        ({ removeUnusedFiles }) => removeUnusedFiles(place),
        () => {},
      );
      throw reason;
    });
    if ('ok' in report) return { pid: report.pid };
    throw FusetapError.from(report.error);
  } finally {
    closeSync(log);
  }
}

/** Whether startKeeper failed because another keeper has the bus. */
export function isAlreadyRunning(error: unknown): boolean {
  return error instanceof FusetapError && error.code === 'BUSY' && error.message.startsWith('already running');
}

async function spawnKeeper(place: BusPlace, options: StartOptions, log: number): Promise<ChildProcess> {
  const command = keeperCommand(place, options);
  // a bus for one process alone ends with that process, so it stays in the same unit
  if (options.lifeline === undefined && runsSystemd()) {
    const child = await spawnInScope(place, command, log);
    if (child !== null) return child;
  }
  const lifeline = options.lifeline ? (['pipe'] as const) : [];
  return await spawnDetached(command, { stdio: ['ignore', log, log, 'pipe', ...lifeline] });
}

/** @returns null if the bus stays in the unit of this process: that is its place, or systemd cannot make a scope */
async function spawnInScope(place: BusPlace, command: readonly string[], log: number): Promise<ChildProcess | null> {
  const { anotherScope, chooseScope, commandInScope } = await import('../systemd/bus-scope.js');
  const scope = await chooseScope(place);
  if (scope === null) return null;
  const spawnIn = async (each: BusScope): Promise<ChildProcess | 'refused' | 'late'> => {
    const whole = await commandInScope(each, place.name, command);
    const child = await spawnDetached(whole, { stdio: ['ignore', log, log, 'pipe', 'pipe'], env: each.env });
    const entry = await awaitEntry(child);
    if (entry === 'entered') return child;
    (child.stdio[3] as Readable).destroy();
    return entry;
  };
  const first = await spawnIn(scope);
  // of this name there may be what is left of an earlier bus
  const found = first === 'refused' ? await spawnIn(anotherScope(scope)) : first;
  return typeof found === 'string' ? null : found;
}

/**
 * Whether a process of commandInScope has entered its scope. If it was refused, it has ended, and has not executed the
 * command. If it is late, as while a unit that must be stopped before the scope starts is still stopping, it is killed.
 */
async function awaitEntry(child: ChildProcess): Promise<'entered' | 'refused' | 'late'> {
  const pipe = child.stdio[4] as Readable;
  const failed = new Promise<null>((resolve) => child.once('error', () => resolve(null)));
  const first = await within(
    Promise.race([failed, pipe[Symbol.asyncIterator]().next()]),
    SCOPE_LIMIT_MS,
    'late' as const,
  );
  pipe.destroy();
  if (first !== 'late') return first?.done === false ? 'entered' : 'refused';
  child.kill('SIGKILL');
  return 'late';
}

function keeperCommand(place: BusPlace, options: StartOptions): string[] {
  const argument: KeeperArgument = {
    bus: place.name,
    path: place.path,
    stateDir: place.stateDir,
    runtimeDir: place.runtimeDir,
    ownDirectory: place.ownDirectory,
    persistent: options.persistent,
    transport: options.transport ?? 'kernel',
    allowOther: options.allowOther ?? false,
    ...(options.lifeline && { lifeline: true }),
  };
  const program = options.program ?? fileURLToPath(new URL('./main.cjs', import.meta.url));
  return [process.execPath, ...BUS_NODE_OPTIONS, program, JSON.stringify(argument)];
}

async function spawnDetached(
  [program = '', ...args]: readonly string[],
  { stdio, env = {} }: { stdio: StdioOptions; env?: Readonly<Record<string, string>> },
): Promise<ChildProcess> {
  const { spawn } = await import('node:child_process');
  return spawn(program, args, {
    detached: true,
    env: { ...keeperEnvironment(process.env), ...env },
    // the keeper must not keep the working directory of the command in use: it may be on a mount
    cwd: '/',
    stdio,
  });
}

function openBusLog(place: BusPlace): number {
  const path = join(place.stateDir, 'log');
  try {
    return openLog(place.stateDir);
  } catch (error) {
    throw toFusetapError(error, `cannot open the log of bus ${place.name}: ${(error as Error).message}`, { path });
  }
}

/** Reads the keeper's report from descriptor 3. Afterwards neither process nor pipe keeps the caller alive. */
async function readReport(child: ChildProcess, limitMs: number): Promise<Report> {
  const pipe = child.stdio[3] as Readable;
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    child.kill('SIGKILL');
  }, limitMs);
  const failed = new Promise<never>((_, reject) => child.once('error', reject));
  try {
    const line = await Promise.race([failed, readLine(pipe)]);
    const report = line === null ? null : (JSON.parse(line) as Report);
    // when the caller learns of the failure, nothing must be left of the attempt
    const hasExited = child.exitCode !== null || child.signalCode !== null;
    if ((report === null || 'error' in report) && !hasExited) await once(child, 'exit');
    if (report === null) throw isLate ? new SlowKeeper(limitMs) : new Error('it exited without a report');
    return report;
  } finally {
    clearTimeout(timer);
    pipe.destroy();
    child.unref();
  }
}

/** @returns null if the pipe closes before a whole line came */
async function readLine(pipe: Readable): Promise<string | null> {
  let text = '';
  pipe.setEncoding('utf8');
  for await (const chunk of pipe) {
    text += chunk as string;
    if (text.includes('\n')) return text.slice(0, text.indexOf('\n'));
  }
  return null;
}

class SlowKeeper extends Error {
  constructor(limitMs: number) {
    super(`it did not answer within ${limitMs / 1000} s and was killed`);
  }
}

/** The error for a keeper that reported nothing: with its last message in the log, which usually tells the reason. */
function diedSilently(place: BusPlace, logStart: number, error: unknown): FusetapError {
  const path = join(place.stateDir, 'log');
  const said = error instanceof SlowKeeper ? undefined : lastMessage(path, logStart);
  const reason = said ?? (error as Error).message;
  return new FusetapError('FAILED', `cannot start the keeper of bus ${place.name}: ${reason}`, {
    hint: `see ${path}`,
    operation: 'start',
    cause: error,
  });
}

function lastMessage(path: string, start: number): string | undefined {
  try {
    const lines = readFileSync(path).subarray(start).toString('utf8').split('\n');
    // when Node crashed: skip the stack, who needed a missing file, the properties of the error, and the version
    return lines.findLast((line) => /^[^\s}]/.test(line) && !/^(Node\.js v|Require stack:|- )/.test(line));
  } catch {
    return undefined;
  }
}
