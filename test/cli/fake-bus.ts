/**
 * A fake keeper: a server on the control socket of a bus with fixed answers, for tests of its clients.
 */
import { execFile } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import type { BusInfo, FileNames, VbdInfo } from '../../mount/control/interface.js';
import { socketAddress } from '../../mount/runtime/socket-address.js';
import { tryFlockExclusive } from '../../system/libc.js';

/** What was asked. */
export interface Asked {
  method: string;
  url: string;
  body: unknown;
  interface: string | undefined;
}

export type Answers = (asked: Asked, response: ServerResponse) => unknown;

/** A directory that is removed after the test. A process that was just killed may write into it until it has exited. */
export function tempDir(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'fusetap-test-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 }));
  return path;
}

export interface FakeBus {
  /** all that was asked, in order */
  readonly asked: Asked[];
  readonly stateDir: string;
  /** stops listening, removes the files and gives up the lock, as a keeper that leaves */
  leave(): void;
}

/** What a file of a bus holds: nothing, but for the given keys. */
export function aFile(keys: Partial<FileNames> = {}): FileNames {
  const { bus = '0', vdev = 'xvda' } = keys;
  const place = { bus, vdev, slot: 51712, path: `/run/fusetap/bus/${bus}/${vdev}` };
  const names = { label: null, labelEncoded: null, uuid: null, partlabel: null, partuuid: null };
  return { ...place, type: null, usage: null, ...names, ...keys };
}

/**
 * Listens as the bus `name` of a runtime directory.
 * @param answers gives the body of a 200, or `{status, body}`; undefined where it has dealt with the response itself
 */
export async function fakeBus(t: Test, runtime: string, name: string, answers: Answers): Promise<FakeBus> {
  const stateDir = join(runtime, 'state', name);
  mkdirSync(stateDir, { recursive: true });
  const lock = openSync(join(stateDir, 'lock'), 'w');
  if (!tryFlockExclusive(lock)) throw new Error(`two fake buses ${name}`);
  const asked: Asked[] = [];
  const server = createServer((request, response) => {
    void readRequest(request).then((one) => {
      asked.push(one);
      reply(response, answers(one, response));
    });
  });
  const address = socketAddress(stateDir, 'control.sock');
  await new Promise<void>((resolve) => server.listen(address.path, resolve));
  address.close();
  let here = true;
  const leave = (): void => {
    if (!here) return;
    here = false;
    server.close();
    server.closeAllConnections();
    rmSync(stateDir, { recursive: true, force: true });
    closeSync(lock);
  };
  t.teardown(leave);
  return { asked, stateDir, leave };
}

async function readRequest(request: IncomingMessage): Promise<Asked> {
  let text = '';
  for await (const chunk of request) text += String(chunk);
  const { method = '', url = '', headers } = request;
  return {
    method,
    url,
    body: text === '' ? undefined : JSON.parse(text),
    interface: headers['fusetap-interface'] as string,
  };
}

function reply(response: ServerResponse, answer: unknown): void {
  if (answer === undefined) return;
  const { status = 200, body = answer } = answer as { status?: number; body?: unknown };
  response.writeHead(status, { 'content-type': 'application/json', 'fusetap-interface': '1.0' });
  response.end(JSON.stringify(body));
}

/** A vbd as a bus shows it. */
export function aVbd(changes: Partial<VbdInfo> = {}): VbdInfo {
  const bus = changes.bus ?? '0';
  const vdev = changes.vdev ?? 'xvda';
  return {
    ...{ bus, vdev, slot: 51712, path: `/run/fusetap/bus/${bus}/${vdev}`, driver: 'aio', image: '/srv/disk.img' },
    ...{ mode: 'w', size: 1_572_864, state: 'running', opens: 0, transport: 'kernel', passthrough: false, share: null },
    ...{ partitions: null, keeperPid: 1, serverPid: 2, restarts: 0, changedOutside: false },
    ...changes,
  };
}

export function aBus(bus: string, vbds: VbdInfo[]): BusInfo {
  return {
    ...{ bus, path: `/run/fusetap/bus/${bus}`, transport: 'kernel', allowOther: false, restarts: 0 },
    ...{ keeperPid: 1, serverPid: 2, state: 'running', interface: '1.0', vbds },
  };
}

export interface Outcome {
  status: number;
  stdout: string;
  stderr: string;
}

const PROGRAM = fileURLToPath(new URL('../../cli/main.cjs', import.meta.url));

/** Runs the command line in a process of its own. */
export function fusetap(
  runtime: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  cwd: string = process.cwd(),
): Promise<Outcome> {
  const { FUSETAP_BUS: _, ...inherited } = process.env;
  return new Promise((resolve) => {
    const options = { env: { ...inherited, FUSETAP_RUNTIME_DIR: runtime, ...env }, cwd };
    const child = execFile(process.execPath, [PROGRAM, ...args], options, (_error, stdout, stderr) => {
      resolve({ status: child.exitCode ?? -1, stdout, stderr });
    });
  });
}
