/**
 * A file on a web server: ranges of it, each as it was when the file was attached.
 *
 *      read(range) ──► GET, Range, If-Match ──► 206: checked, then the bytes
 *                           ├─► a redirect: followed, and remembered for a minute
 *                           ├─► network errors, 408, 429, 5xx, a whole file, a slow answer: again after 0.5, 1, 2, 4, then every 8 s
 *                           └─► another file: all requests fail from then on
 */
import { setMaxListeners } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { Agent, type Dispatcher, request } from 'undici';
import { trustExtraCertificates } from '../../system/extra-certificates.js';
import { untilAborted } from '../../system/until-aborted.js';
import type { ConnectionState } from '../driver.js';
import { FusetapError } from '../errors.js';
import { named, quoted } from '../quote.js';
import { inputOutputError, readNamedFile, reasonOf } from '../remote/faults.js';
import { checkAnswer, errorOfStatus, type FileFacts, factsOf, type Range, strongEtag } from './answer.js';
import { OtherFile, TryAgain } from './faults.js';
import type { HttpsOptions } from './options.js';

const CONNECTIONS = 16;
const PAUSES_MS = [500, 1_000, 2_000, 4_000, 8_000];
/** a server that sends nothing for so long is asked again */
const SILENCE_MS = 20_000;
const CONNECT_MS = 10_000;
/** an answer may take so long, and besides a second for each of so many bytes: a server that is slower is asked again */
const ATTEMPT_MS = 20_000;
const LEAST_BYTES_PER_SECOND = 16 << 10;
/** for bytes that are not needed */
const DROP_MS = 10_000;
const DROP_BYTES = 64 << 10;
/** a request that takes longer is shown as reconnecting */
const QUIET_MS = 2_000;
const MOST_REDIRECTS = 10;
const REMEMBER_MS = 60_000;
const REDIRECTS = [301, 302, 303, 307, 308];
/** addresses of redirects end: then the original one is asked again */
const EXPIRED = ['DENIED', 'NOT_FOUND'];

type Response = Dispatcher.ResponseData;

/** What the files of options say. */
interface Access {
  readonly agent: Agent;
  /** of `header-file` */
  readonly headers: Readonly<Record<string, string>>;
}

export class WebFile {
  readonly #options: HttpsOptions;
  /** aborted with the reason why all requests fail */
  readonly #closing = new AbortController();
  readonly #tell: (state: ConnectionState) => void;
  /** the state that was told last */
  #told: ConnectionState['is'] = 'connected';
  #facts: FileFacts | null;
  /** null: no request was made yet, or its files could not be read */
  #access: Promise<Access> | null = null;
  /** where redirects have led to */
  #place: { readonly url: string; readonly untilMs: number } | null = null;
  /** why all requests fail; null: they do not */
  #refusal: FusetapError | null = null;
  /** reads that are tried again */
  #troubled = 0;

  private constructor(options: HttpsOptions, facts: FileFacts | null, tell: (state: ConnectionState) => void) {
    this.#options = options;
    this.#facts = facts;
    this.#tell = tell;
    // each request under way listens
    setMaxListeners(0, this.#closing.signal);
  }

  /**
   * @param facts of an earlier server of the disk: then the files of options are read at the first request, because they may be
   * on a file system that hangs; null: the file is asked
   * @param tell is told when requests must wait, and when the file is another one
   * @throws FusetapError for files of options that cannot be read
   */
  static async open(
    options: HttpsOptions,
    facts: FileFacts | null,
    tell: (state: ConnectionState) => void = () => {},
  ): Promise<WebFile> {
    const file = new WebFile(options, facts, tell);
    if (facts === null) await file.#accessed();
    return file;
  }

  /** @throws FusetapError for files of options that cannot be read; they are read again then at the next call */
  async #accessed(signal = this.#closing.signal): Promise<Access> {
    if (this.#access === null) {
      const reading = readAccess(this.#options);
      this.#access = reading;
      reading.catch(() => {
        this.#access = null;
      });
    }
    return await untilAborted(this.#access, signal);
  }

  /** What the file is. @throws FusetapError if it cannot be reached now, or cannot be a disk */
  async probe(): Promise<FileFacts> {
    if (this.#facts !== null) return this.#facts;
    try {
      this.#facts = await this.#attempt({ offset: 0, length: 1 }, async ({ headers, body }) => {
        await drop(body);
        return factsOf(headers);
      });
    } catch (error) {
      throw this.#notReached(error);
    }
    return this.#facts;
  }

  #notReached(error: unknown): unknown {
    if (error instanceof FusetapError) return error;
    if (error instanceof OtherFile) {
      return new FusetapError('UNSUPPORTED', 'the file is empty', { hint: 'a disk has at least one byte' });
    }
    const { host } = new URL(this.#options.url);
    const hint = 'try the URL with curl -I';
    return new FusetapError('NOT_FOUND', `${host}: ${reasonOf(error)}`, { hint, cause: error });
  }

  /** Reads a range into a buffer of its length. @throws FusetapError with EIO */
  async read(range: Range, to: Uint8Array): Promise<void> {
    const begunMs = performance.now();
    let isTroubled = false;
    try {
      for (let attempt = 0; ; attempt++) {
        if (this.#refusal !== null) throw this.#refusal;
        const error = await this.#readOnce(range, to).then(() => null, failure);
        if (error === null) break;
        if (!isTroubled) this.#troubled += 1;
        isTroubled = true;
        await this.#afterFailure(error.reason, attempt, begunMs);
      }
    } finally {
      if (isTroubled) this.#troubled -= 1;
    }
    if (this.#troubled === 0) this.#tellChange({ is: 'connected' });
  }

  /** Waits until the next try. @throws if there is none */
  async #afterFailure(error: unknown, attempt: number, begunMs: number): Promise<void> {
    // the server of the URL may know another one
    this.#place = null;
    const final = this.#finalError(error);
    if (final !== null) throw final;
    const { timeoutMs } = this.#options;
    const elapsedMs = performance.now() - begunMs;
    const leftMs = timeoutMs === null ? Number.POSITIVE_INFINITY : timeoutMs - elapsedMs;
    if (leftMs <= 0) throw inputOutputError(`${reasonOf(error)}, for ${Math.round(elapsedMs / 1000)} s`, error);
    const asked = error instanceof TryAgain ? error.afterMs : 0;
    const usual = PAUSES_MS[Math.min(attempt, PAUSES_MS.length - 1)] as number;
    const pauseMs = Math.min(Math.max(asked, usual), leftMs);
    if (elapsedMs + pauseMs > QUIET_MS) this.#tellChange({ is: 'reconnecting', reason: reasonOf(error) });
    await delay(pauseMs, null, { signal: this.#closing.signal }).catch(() => {
      throw this.#closing.signal.reason;
    });
  }

  /** A disk that is broken stays so. */
  #tellChange(state: ConnectionState): void {
    if (this.#told === state.is || this.#told === 'broken') return;
    this.#told = state.is;
    this.#tell(state);
  }

  /** @returns the error to answer; null: another try may succeed */
  #finalError(error: unknown): FusetapError | null {
    if (this.#closing.signal.aborted) return this.#closing.signal.reason;
    const isOther = error instanceof OtherFile || (error instanceof FusetapError && error.code === 'UNSUPPORTED');
    if (isOther) {
      this.#refusal ??= inputOutputError(error.message, error);
      this.#tellChange({ is: 'broken', reason: error.message });
      return this.#refusal;
    }
    return error instanceof FusetapError ? inputOutputError(error.message, error) : null;
  }

  async #readOnce(range: Range, to: Uint8Array): Promise<void> {
    const facts = this.#facts;
    if (facts === null) throw new TypeError('the file was not probed');
    await this.#attempt(range, async ({ headers, body }) => {
      checkAnswer(headers, range, facts);
      let done = 0;
      for await (const chunk of body as AsyncIterable<Buffer>) {
        if (done + chunk.byteLength > to.byteLength) throw new OtherFile('the server sends more than was asked for');
        to.set(chunk, done);
        done += chunk.byteLength;
      }
      if (done < to.byteLength) throw new TryAgain('the server ended its answer early');
    });
  }

  /** Asks for a range once, and takes the answer, all within the time that its length may take. */
  async #attempt<Result>(range: Range, take: (response: Response) => Promise<Result>): Promise<Result> {
    const attempt = new AbortController();
    const limitMs = ATTEMPT_MS + (1000 * range.length) / LEAST_BYTES_PER_SECOND;
    const tooSlow = new TryAgain(`the server took longer than ${Math.round(limitMs / 1000)} s`);
    const timer = setTimeout(() => attempt.abort(tooSlow), limitMs);
    const closing = this.#closing.signal;
    const end = (): void => attempt.abort(closing.reason);
    closing.addEventListener('abort', end);
    if (closing.aborted) end();
    try {
      const response = await this.#respond(range, attempt.signal);
      try {
        return await take(response);
      } finally {
        close(response);
      }
    } catch (error) {
      throw attempt.signal.aborted ? attempt.signal.reason : error;
    } finally {
      clearTimeout(timer);
      closing.removeEventListener('abort', end);
    }
  }

  /** The answer that has bytes of the file. The caller reads or destroys its body. */
  async #respond(range: Range, signal: AbortSignal): Promise<Response> {
    const access = await this.#accessed(signal);
    try {
      return await this.#follow({ range, signal, access });
    } catch (error) {
      if (!(error instanceof FusetapError) || !EXPIRED.includes(error.code)) throw error;
      // the address of a redirect has ended, or a header was renewed
      const hasPlace = this.#place !== null;
      const headers = await untilAborted(readHeaders(this.#options.headerFile), signal);
      if (!hasPlace && JSON.stringify(headers) === JSON.stringify(access.headers)) throw error;
      this.#place = null;
      const renewed = { ...access, headers };
      this.#access = Promise.resolve(renewed);
      return await this.#follow({ range, signal, access: renewed });
    }
  }

  async #follow(asking: Asking): Promise<Response> {
    const place = this.#place !== null && performance.now() < this.#place.untilMs ? this.#place.url : null;
    let url = place ?? this.#options.url;
    for (let count = 0; count <= MOST_REDIRECTS; count++) {
      const response = await this.#ask(url, asking);
      if (!REDIRECTS.includes(response.statusCode)) {
        const error = errorOfStatus(response, url, this.#facts !== null);
        if (error === null) {
          if (url !== this.#options.url && place === null) this.#remember(url);
          return response;
        }
        // a whole file may follow: the connection is closed
        close(response);
        throw error;
      }
      await drop(response.body);
      url = redirected(url, response.headers.location);
    }
    throw new FusetapError('FAILED', `the server redirects more than ${MOST_REDIRECTS} times`);
  }

  #remember(url: string): void {
    this.#place = { url, untilMs: performance.now() + REMEMBER_MS };
  }

  #ask(url: string, { range: { offset, length }, signal, access }: Asking): Promise<Response> {
    const etag = this.#facts === null ? null : strongEtag(this.#facts);
    // secrets are for the server that the user has named
    const isOwn = new URL(url).origin === new URL(this.#options.url).origin;
    return request(url, {
      dispatcher: access.agent,
      signal,
      headers: {
        ...(isOwn && access.headers),
        range: `bytes=${offset}-${offset + length - 1}`,
        'accept-encoding': 'identity',
        'user-agent': 'fusetap',
        ...(etag !== null && { 'if-match': etag }),
      },
    });
  }

  /** Requests that wait fail, and so do all later ones: the disk is going away, although the web server does not answer. */
  giveUp(): void {
    this.#end('the disk was given up');
  }

  /** Requests that wait fail. */
  async close(): Promise<void> {
    this.#end('the disk is being detached');
    const access = this.#access;
    this.#access = null;
    // its files may be on a file system that hangs
    access?.then(({ agent }) => agent.destroy()).catch(() => {});
  }

  #end(why: string): void {
    this.#refusal ??= inputOutputError(why);
    this.#closing.abort(this.#refusal);
  }
}

interface Asking {
  readonly range: Range;
  readonly signal: AbortSignal;
  readonly access: Access;
}

const failure = (reason: unknown): { readonly reason: unknown } => ({ reason });

function close({ body }: Response): void {
  body.on('error', () => {}).destroy();
}

/** Reads bytes that are not needed, so that the connection can be used again, unless there are many or they come slowly. */
async function drop(body: Response['body']): Promise<void> {
  const timer = setTimeout(() => body.destroy(), DROP_MS);
  await body.dump({ limit: DROP_BYTES }).catch(() => {});
  clearTimeout(timer);
}

/** @throws FusetapError for files that cannot be read */
async function readAccess({ caFile, headerFile }: HttpsOptions): Promise<Access> {
  const ca = caFile === null ? null : await readNamedFile(caFile);
  const headers = await readHeaders(headerFile);
  trustExtraCertificates();
  const agent = new Agent({
    connections: CONNECTIONS,
    headersTimeout: SILENCE_MS,
    bodyTimeout: SILENCE_MS,
    connect: { timeout: CONNECT_MS, ...(ca !== null && { ca }) },
  });
  return { agent, headers };
}

/** @throws FusetapError for an address that must not be followed */
function redirected(from: string, location: string | string[] | undefined): string {
  const target = typeof location === 'string' && URL.canParse(location, from) ? new URL(location, from) : null;
  if (target === null) throw new FusetapError('FAILED', 'the server redirects to no address');
  const isSafe = target.protocol === 'https:' || (target.protocol === 'http:' && from.startsWith('http:'));
  if (isSafe && target.username === '') return target.href;
  throw new FusetapError('DENIED', `the server redirects to ${quoted(target.protocol)}`, {
    hint: 'from https only https is followed; give the other URL itself if you trust it',
  });
}

/** Lines `Name: value`. @throws FusetapError */
async function readHeaders(path: string | null): Promise<Readonly<Record<string, string>>> {
  if (path === null) return {};
  const text = (await readNamedFile(path)).toString('utf8');
  const headers: Record<string, string> = {};
  for (const line of text.split(/\r?\n/).filter((each) => each.trim() !== '')) {
    const [, name, value] =
      /^([!#$%&'*+.^_`|~\w-]+):[ \t]*([\x21-\x7e\x80-\xff][\t\x20-\x7e\x80-\xff]*)$/.exec(line) ?? [];
    if (name === undefined || value === undefined) {
      throw new FusetapError('USAGE', `${named(path)} has a line that is no header`, {
        hint: 'write lines as Authorization: Bearer …',
      });
    }
    headers[name.toLowerCase()] = value;
  }
  return headers;
}
