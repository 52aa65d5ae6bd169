/** Runs a command on our terminal until it ends, as env(1) does. */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import type { Lifeline } from '../../mount/client/index.js';
import { printNote } from '../output.js';
import type { SignalCatch } from './signals.js';

const CANNOT_RUN = 126;
const NOT_FOUND = 127;

/** The exit status that shells use for a process that a signal ended. */
export function statusOfSignal(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal];
}

/**
 * @param added variables to add to our environment
 * @returns the exit status: the command's own, 128+N after signal N, 126 or 127 if it could not be run
 */
export function runCommand(
  [program, ...args]: readonly [string, ...string[]],
  added: NodeJS.ProcessEnv,
  { signals, lifeline }: { readonly signals: SignalCatch; readonly lifeline: Lifeline },
): Promise<number> {
  return new Promise((resolve) => {
    const refuse = (error: NodeJS.ErrnoException): void => {
      printNote(`cannot run ${program}: ${error.code ?? error.message}`);
      resolve(error.code === 'ENOENT' ? NOT_FOUND : CANNOT_RUN);
    };
    try {
      const child = spawn(program, args, { stdio: 'inherit', env: { ...process.env, ...added } });
      if (child.pid !== undefined) lifeline.tell(child.pid);
      signals.forwardTo((signal) => child.kill(signal));
      child.on('error', refuse);
      child.on('exit', (code, signal) => resolve(code ?? statusOfSignal(signal ?? 'SIGKILL')));
    } catch (error) {
      refuse(error as NodeJS.ErrnoException);
    }
  });
}
