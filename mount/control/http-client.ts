/**
 * Sends a request to a control socket and reads the answer: HTTP with JSON over a Unix socket.
 *
 * Callers react differently to three kinds of failure: nobody listens (isNotRunning), the connection was lost before
 * the answer (isConnectionLost), everything else.
 */
import type { ClientRequest, IncomingMessage, RequestOptions } from 'node:http';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { codeOfErrno, FusetapError, type PlainError } from '../../drivers/errors.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { socketAddress } from '../runtime/socket-address.js';
import { type AnswerLine, INTERFACE_HEADER, INTERFACE_VERSION, PROGRESS_TYPE } from './interface.js';
import { watchStopped } from './watch-stopped.js';

/** how long to wait for the answer to a request that was cancelled: a disk may hang */
const CANCELLED_LIMIT_MS = 5_000;

/** how long to try again if the backlog of the socket is full */
const BACKLOG_LIMIT_MS = 5_000;

/**
 * a bus that has not told its version for this long counts as not answering, even if the request itself may take longer
 */
const SILENCE_LIMIT_MS = 10_000;
const ASK_VERSION_MS = 2_000;

export interface ControlRequest {
  readonly method: 'GET' | 'POST' | 'DELETE';
  /** with the query */
  readonly path: string;
  readonly body?: unknown;
  /**
   * Aborted: the bus gives up what it does, and the call rejects with the reason when that is undone. If the bus was done
   * already, the call resolves as if nothing had happened.
   */
  readonly signal?: AbortSignal | undefined;
  /** called with the progress of a copy */
  readonly progress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
  /** default: no limit, because an attach may copy for long; but the bus must tell its version meanwhile */
  readonly timeoutMs?: number;
  /** default: the keeper's */
  readonly socket?: 'control.sock' | 'server.sock';
}

/**
 * Sends the request and returns the body of the answer.
 * @throws FusetapError the error that the bus answered; NOT_FOUND if nobody listens; UNSUPPORTED for another interface
 */
export async function askBus<Answer>(place: BusPlace, request: ControlRequest): Promise<Answer> {
  const deadline = Date.now() + BACKLOG_LIMIT_MS;
  for (;;) {
    request.signal?.throwIfAborted();
    try {
      return readAnswer(place, await exchange(place, request)) as Answer;
    } catch (error) {
      request.signal?.throwIfAborted();
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN' && Date.now() < deadline) await delay(10);
      else throw await explain(place, error);
    }
  }
}

/** Whether the error says that no process listens on the socket. */
export function isNotRunning(error: unknown): boolean {
  return error instanceof FusetapError && error.code === 'NOT_FOUND' && error.operation === 'connect';
}

/** Whether the error says that the bus ended, or did not answer. */
export function isConnectionLost(error: unknown): boolean {
  return error instanceof FusetapError && error.code === 'FAILED' && error.operation === 'ask';
}

interface Exchange {
  readonly response: IncomingMessage;
  readonly status: number;
  readonly text: string;
}

async function exchange(place: BusPlace, request: ControlRequest): Promise<Exchange> {
  const { request: send } = await import('node:http');
  const address = socketAddress(place.stateDir, request.socket ?? 'control.sock');
  const body = request.body === undefined ? undefined : JSON.stringify(request.body);
  try {
    const sent = send(requestOptions(address.path, request, body));
    sent.end(body);
    const cancelling = cancelOn(request.signal, sent);
    const listening = request.timeoutMs === undefined ? watchAnswers(send, address.path, sent) : null;
    const which = request.socket === 'server.sock' ? 'serverPid' : 'keeperPid';
    const stopped = watchStopped(place, which, (pid) => sent.destroy(new Error(`its process ${pid} is stopped`)));
    try {
      const response = await firstOf(sent, request.timeoutMs);
      return { response, ...(await readBody(response, request)) };
    } finally {
      cancelling.end();
      listening?.end();
      stopped.end();
    }
  } finally {
    address.close();
  }
}

/**
 * Closes our side of the connection when the signal is aborted. The bus then gives up what it does, and answers. If that
 * takes long, the whole connection is closed. A GET changes nothing that would have to be undone: its connection is closed at
 * once.
 */
function cancelOn(signal: AbortSignal | undefined, sent: ClientRequest): { end(): void } {
  let timer: NodeJS.Timeout | undefined;
  const destroy = (): void => void sent.destroy(new Error('it was cancelled'));
  const cancel = (): void => {
    if (sent.method === 'GET' || sent.socket === null || sent.socket.connecting) return destroy();
    sent.socket.end();
    timer = setTimeout(destroy, CANCELLED_LIMIT_MS);
  };
  signal?.addEventListener('abort', cancel);
  return {
    end: () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', cancel);
    },
  };
}

/**
 * Asks the bus for its version during a request that may take long. So a long copy, or a detach that waits, has no time
 * limit, but a keeper that is stopped is noticed.
 */
function watchAnswers(
  send: typeof import('node:http').request,
  socketPath: string,
  sent: ClientRequest,
): { end(): void } {
  let heardMs = performance.now();
  let asking: ClientRequest | null = null;
  const timer = setInterval(() => {
    if (performance.now() - heardMs > SILENCE_LIMIT_MS) {
      sent.destroy(new Error(`it has been silent for ${SILENCE_LIMIT_MS / 1000} s: its keeper is stopped, or hangs`));
    }
    if (asking !== null) return;
    asking = send({ socketPath, path: '/version', agent: false }, (response) => {
      heardMs = performance.now();
      response.resume();
    });
    asking
      .on('error', () => {})
      .on('close', () => {
        asking = null;
      });
    asking.end();
  }, ASK_VERSION_MS);
  return {
    end: () => {
      clearInterval(timer);
      asking?.destroy();
    },
  };
}

/** else Node looks whether the host is an IP address, by a large regular expression; its types do not know the key */
const WITHOUT_NAME = { servername: '' };

function requestOptions(socketPath: string, request: ControlRequest, body: string | undefined): RequestOptions {
  return {
    socketPath,
    method: request.method,
    path: request.path,
    agent: false,
    ...WITHOUT_NAME,
    headers: {
      [INTERFACE_HEADER]: INTERFACE_VERSION,
      ...(request.progress && { accept: `${PROGRESS_TYPE}, application/json` }),
      ...(body !== undefined && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
    },
  };
}

function firstOf(sent: ClientRequest, timeoutMs: number | undefined): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    sent.on('response', resolve);
    sent.on('error', reject);
    if (timeoutMs === undefined) return;
    const timer = setTimeout(() => sent.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)), timeoutMs);
    sent.on('close', () => clearTimeout(timer));
  });
}

/** Reads the body. If the answer is in lines, the last line has status and body, and the others are progress. */
async function readBody(
  response: IncomingMessage,
  { progress }: ControlRequest,
): Promise<{ status: number; text: string }> {
  const { statusCode: status = 0 } = response;
  let text = '';
  response.setEncoding('utf8');
  if (response.headers['content-type'] !== PROGRESS_TYPE) {
    for await (const chunk of response) text += chunk as string;
    return { status, text };
  }
  let answer: AnswerLine | null = null;
  for await (const chunk of response) {
    const lines = (text + (chunk as string)).split('\n');
    text = lines.pop() ?? '';
    for (const line of lines) {
      answer = JSON.parse(line) as AnswerLine;
      if ('progress' in answer) progress?.(answer.progress.doneBytes, answer.progress.totalBytes);
    }
  }
  // the connection ended before the answer was complete
  if (answer === null || 'progress' in answer) throw new Error('the answer is incomplete');
  return { status: answer.status, text: JSON.stringify(answer.body) };
}

function readAnswer(place: BusPlace, { response: { headers }, status: statusCode, text }: Exchange): unknown {
  checkInterface(place, headers[INTERFACE_HEADER]);
  let body: unknown;
  try {
    body = text === '' ? null : JSON.parse(text);
  } catch (error) {
    throw strangeAnswer(place, `status ${statusCode}, not JSON`, error);
  }
  if (statusCode >= 200 && statusCode < 300) return body;
  const plain = (body as { error?: PlainError } | null)?.error;
  if (typeof plain?.code === 'string' && typeof plain.message === 'string') throw FusetapError.from(plain);
  throw strangeAnswer(place, `status ${statusCode} without an error`);
}

function checkInterface(place: BusPlace, header: string | string[] | undefined): void {
  const major = (version: string): string => version.split('.')[0] ?? '';
  if (typeof header !== 'string') throw strangeAnswer(place, `no ${INTERFACE_HEADER} header`);
  if (major(header) === major(INTERFACE_VERSION)) return;
  const message = `bus ${place.name} speaks interface ${header}, this fusetap speaks ${INTERFACE_VERSION}`;
  throw new FusetapError('UNSUPPORTED', message, {
    hint: 'use the fusetap that started the bus, or stop the bus with it and start it again',
  });
}

function strangeAnswer(place: BusPlace, what: string, cause?: unknown): FusetapError {
  return new FusetapError('FAILED', `bus ${place.name} gave a strange answer: ${what}`, { cause });
}

/** Turns a system error of the connection into an error about the bus; returns other errors unchanged. */
async function explain(place: BusPlace, error: unknown): Promise<unknown> {
  const { code, errno, syscall, message } = error as NodeJS.ErrnoException;
  if (error instanceof FusetapError) return error;
  if (code === 'ENOENT' || code === 'ECONNREFUSED' || code === 'ENOTDIR') {
    return new FusetapError('NOT_FOUND', `no bus ${place.name}: nothing runs at ${place.path}`, {
      hint: 'fusetap attach or fusetap start starts a bus; fusetap ls lists the running buses',
      operation: 'connect',
      path: place.path,
      cause: error,
    });
  }
  if (syscall === 'connect' || syscall === 'open') {
    const kind = codeOfErrno(Math.abs(errno ?? 0));
    return new FusetapError(kind, `cannot reach bus ${place.name}: ${place.stateDir}: ${code}`, {
      hint: kind === 'DENIED' ? 'only the user who started a bus, and root, can control it' : undefined,
      cause: error,
    });
  }
  const { readBusRecord } = await import('../runtime/bus-record.js');
  const pid = readBusRecord(place.stateDir)?.keeperPid ?? null;
  return new FusetapError('FAILED', `bus ${place.name} did not answer: ${message}`, {
    hint: `see ${join(place.stateDir, 'log')}${pid === null ? '' : `; kill -CONT ${pid} continues a stopped keeper`}`,
    operation: 'ask',
    cause: error,
  });
}
