/** Runs a program until it ends, but no longer than a limit. */
import { spawn } from 'node:child_process';
import { CLI, type Stage } from './stage.js';

export interface Outcome {
  /** null if a signal ended it */
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly ms: number;
  /** whether it had to be killed because its time was up */
  readonly isLate: boolean;
}

export interface ProgramOptions {
  readonly limitMs: number;
  /** when aborted, the program gets SIGINT, as from Ctrl-C */
  readonly signal?: AbortSignal | undefined;
  /** whether to use the package that may be moved away; a bus runs from the package of the command that starts it */
  readonly fromCopy?: boolean;
  /** added to the variables of the torture itself */
  readonly env?: NodeJS.ProcessEnv;
}

/** Runs fusetap as the stage's user. */
export function runFusetap(stage: Stage, args: readonly string[], options: ProgramOptions): Promise<Outcome> {
  const { runtimeDir, packageDir, node, person, directory } = stage;
  const words = options.fromCopy ? [node, `${packageDir}/dist/cli/main.js`] : [process.execPath, CLI];
  const env = { ...process.env, FUSETAP_RUNTIME_DIR: runtimeDir, HOME: directory, LC_ALL: 'C', ...options.env };
  const began = performance.now();
  return new Promise((resolve) => {
    // in a process group of its own, so that Ctrl-C reaches only the torture, which then ends everything in order
    const stdio = ['ignore', 'pipe', 'pipe'] as ['ignore', 'pipe', 'pipe'];
    const child = spawn(words[0] as string, [words[1] as string, ...args], {
      ...{ stdio, env, cwd: '/', detached: true },
      ...person.spawnOptions,
    });
    const said = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const) {
      child[name].setEncoding('utf8').on('data', (text: string) => {
        said[name] += text;
      });
    }
    let isLate = false;
    const end = (status: number | null): void => {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', interrupt);
      resolve({ status, ...said, ms: performance.now() - began, isLate });
    };
    const timer = setTimeout(() => {
      isLate = true;
      child.kill('SIGKILL');
      // do not wait for a process that cannot be killed
      setTimeout(end, 1_000, null).unref();
    }, options.limitMs);
    const interrupt = (): void => void child.kill('SIGINT');
    options.signal?.addEventListener('abort', interrupt);
    child.on('error', (error) => {
      said.stderr += error.message;
      end(null);
    });
    child.on('close', end);
  });
}
