/** Runs programs that end by themselves: fio, losetup, mkfs, fusetap's own command line … */
import { execFile } from 'node:child_process';
import { access, constants } from 'node:fs/promises';
import { delimiter, isAbsolute, resolve } from 'node:path';
import { FusetapError } from '../../../drivers/errors.js';

export interface CommandOptions {
  /** default: 30 s; then SIGKILL */
  timeoutMs?: number;
  /** aborting kills the program */
  signal?: AbortSignal;
  /** written to its stdin */
  input?: string;
  environment?: NodeJS.ProcessEnv;
}

const OUTPUT_LIMIT_BYTES = 64 << 20;

/** Runs a program and returns its stdout. @throws FusetapError FAILED with the last lines of its stderr */
export function runCommand(command: string, args: readonly string[], options: CommandOptions = {}): Promise<string> {
  const { timeoutMs = 30_000, signal, input = '', environment = process.env } = options;
  return new Promise((resolve, reject) => {
    const child = execFile(
      command,
      [...args],
      { timeout: timeoutMs, killSignal: 'SIGKILL', maxBuffer: OUTPUT_LIMIT_BYTES, env: environment, signal },
      (error, stdout, stderr) => {
        if (error === null) resolve(stdout);
        else reject(signal?.aborted ? signal.reason : commandError([command, ...args], error, stderr || stdout));
      },
    );
    // it is no error if a program ends without reading its stdin
    child.stdin?.on('error', () => {});
    child.stdin?.end(input);
  });
}

function commandError(words: string[], error: Error & { killed?: boolean; code?: unknown }, said: string) {
  const status = error.killed ? 'timed out' : `failed (${String(error.code)})`;
  const lines = said.trim().split('\n').slice(-3).join(' | ');
  return new FusetapError('FAILED', `${words.slice(0, 3).join(' ')} … ${status}: ${lines || error.message}`, {
    cause: error,
  });
}

/** Whether a program is on a path, by default the PATH. */
export async function isInstalled(command: string, path: string = process.env.PATH ?? ''): Promise<boolean> {
  // an absolute path is looked for only there
  const directories = isAbsolute(command) ? ['/'] : path.split(delimiter).filter((each) => each !== '');
  for (const directory of directories) {
    const found = await access(resolve(directory, command), constants.X_OK).then(
      () => true,
      () => false,
    );
    if (found) return true;
  }
  return false;
}
