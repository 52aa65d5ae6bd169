/** Runs a program to its end, and for no longer than a limit. */
import { spawn } from 'node:child_process';
import { CLI, type Stage } from './stage.js';

export interface Outcome {
  /** null where a signal ended it */
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly ms: number;
  /** whether it had to be killed because its time was up */
  readonly isLate: boolean;
}

export interface ProgramOptions {
  readonly limitMs: number;
  /** aborted: it gets SIGINT, as from Ctrl-C */
  readonly signal?: AbortSignal | undefined;
  /** whether it is that of the package that may be moved away; what begins a bus has the bus run from its own package */
  readonly fromCopy?: boolean;
  /** beside the variables of the torture itself */
  readonly env?: NodeJS.ProcessEnv;
}

/** Runs fusetap as the stage's person. */
export function runFusetap(stage: Stage, args: readonly string[], options: ProgramOptions): Promise<Outcome> {
  const { runtimeDir, packageDir, node, person, directory } = stage;
  const words = options.fromCopy ? [node, `${packageDir}/dist/cli/main.js`] : [process.execPath, CLI];
  const env = { ...process.env, FUSETAP_RUNTIME_DIR: runtimeDir, HOME: directory, LC_ALL: 'C', ...options.env };
  const began = performance.now();
  return new Promise((resolve) => {
    // a group of its own: Ctrl-C at the terminal is for the torture, which then ends things in order
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
      // a process that cannot be killed is not waited for
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
