/** Starts an exporter: a process of its own, which lives as long as its starter. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { FusetapError, type PlainError } from '../../drivers/errors.js';
import type { ExportRequest } from './main.js';
import type { ExportPlace } from './server.js';

/** requests that wait for a disk at a time: each takes a thread of libuv's pool */
const REQUESTS_AT_ONCE = '16';

type Told = { readonly listening: ExportPlace; readonly sizeBytes: number } | { readonly error: PlainError };

export interface Exporter {
  /** where it listens */
  readonly place: ExportPlace;
  readonly sizeBytes: number;
  /** resolves when it has ended, for whatever reason: true if it was asked to */
  readonly ended: Promise<boolean>;
  /** Lets it answer the requests that it has, and end. The second call ends it at once. */
  end(): void;
}

/**
 * Resolves when it listens.
 * @throws FusetapError as it says; the reason of the signal, then it has ended
 */
export async function startExporter(request: ExportRequest, signal: AbortSignal): Promise<Exporter> {
  signal.throwIfAborted();
  const child = spawn(process.execPath, [fileURLToPath(new URL('main.cjs', import.meta.url))], {
    env: { UV_THREADPOOL_SIZE: REQUESTS_AT_ONCE, ...process.env },
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    // Ctrl-C is for the starter, which then ends this process in order
    detached: true,
  });
  let wasAsked = false;
  const ended = new Promise<boolean>((resolve) => child.once('exit', () => resolve(wasAsked)));
  child.send(request);
  const told = await firstWord(child, signal);
  if ('error' in told) throw FusetapError.from(told.error);
  const end = (): void => {
    child.kill(wasAsked ? 'SIGKILL' : 'SIGTERM');
    wasAsked = true;
  };
  return { place: told.listening, sizeBytes: told.sizeBytes, ended, end };
}

function firstWord(child: ChildProcess, signal: AbortSignal): Promise<Told> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      // it may wait for a disk
      child.kill('SIGKILL');
      reject(signal.reason);
    };
    signal.addEventListener('abort', abort, { once: true });
    child.once('message', (told: Told) => {
      signal.removeEventListener('abort', abort);
      resolve(told);
    });
    child.once('error', reject);
    child.once('exit', (status, by) => {
      reject(new FusetapError('FAILED', `the exporter ended at its start: ${by ?? `exit status ${status}`}`));
    });
  });
}
