/** Programs that serve until they get a signal. */
import { spawn } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError } from '../../../drivers/errors.js';
import { mountOn } from '../../../system/proc.js';
import { until } from '../../../system/until.js';
import { runCommand } from './command.js';
import type { Undo } from './undo.js';

const END_PATIENCE_MS = 5_000;
const START_PATIENCE_MS = 15_000;
/** short compared with the times of attach that are measured with it */
const POLL_MS = 2;

export interface Daemon {
  pid: number;
  /** its stderr so far */
  said(): string;
  hasEnded(): boolean;
  /** waits until it has ended by itself; kills it if that takes too long */
  end(signal: NodeJS.Signals | null): Promise<void>;
}

/** Starts a program; `undo` ends it with SIGTERM. @throws FusetapError FAILED if it cannot be started */
export function startDaemon(command: string, args: readonly string[], undo: Undo): Daemon {
  // in a process group of its own, so that Ctrl-C reaches only the benchmark, which then ends everything in order
  const child = spawn(command, [...args], { detached: true, stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  let ended = false;
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-2_000);
  });
  const gone = new Promise<void>((resolve) => {
    const note = (): void => {
      ended = true;
      resolve();
    };
    child.once('exit', note).once('error', note);
  });
  if (child.pid === undefined) throw new FusetapError('FAILED', `cannot start ${command}`);
  const end = async (signal: NodeJS.Signals | null): Promise<void> => {
    if (signal !== null && !ended) child.kill(signal);
    await Promise.race([gone, delay(END_PATIENCE_MS, null, { ref: false })]);
    if (!ended) child.kill('SIGKILL');
    await Promise.race([gone, delay(END_PATIENCE_MS, null, { ref: false })]);
    if (!ended) throw new FusetapError('FAILED', `${command} (process ${child.pid}) does not end`);
  };
  undo.defer(() => end('SIGTERM'));
  return { pid: child.pid, said: () => said.trim(), hasEnded: () => ended, end };
}

/** Waits until `isReady`. @throws FusetapError FAILED if the daemon ends first, or is not ready in time */
export async function waitUntilReady(what: string, daemon: Daemon, isReady: () => Promise<boolean>): Promise<void> {
  const isDecided = async (): Promise<boolean> => {
    if (await isReady()) return true;
    if (daemon.hasEnded()) throw new FusetapError('FAILED', `${what} ended at its start: ${daemon.said()}`);
    return false;
  };
  if (await until(isDecided, { timeoutMs: START_PATIENCE_MS, everyMs: POLL_MS })) return;
  throw new FusetapError('FAILED', `${what} is not ready: ${daemon.said()}`);
}

export async function isMounted(path: string): Promise<boolean> {
  return (await mountOn(path)) !== undefined;
}

/** Unmounts a FUSE mount, lazily if it is busy. No error if there is none. */
export async function unmountFuse(path: string): Promise<void> {
  if (!(await isMounted(path))) return;
  await runCommand('fusermount3', ['-u', path]).catch(() => runCommand('fusermount3', ['-u', '-z', path]));
}
