/**
 * A file on a web server: ranges of it, each as it was when the file was attached.
 *
 *      read(range) ──► GET, Range, If-Match ──► 206: checked, then the bytes
 *                           ├─► a redirect: followed, and remembered for a minute
 *                           ├─► network errors, 408, 429, 5xx, a whole file: again after 0.5, 1, 2, 4, then every 8 s
 *                           └─► another file: all requests fail from then on
 */
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { Agent, type Dispatcher, request } from 'undici';
import type { ConnectionState } from '../driver.js';
import { FusetapError } from '../errors.js';
import { named, quoted } from '../quote.js';
import { checkAnswer, errorOfStatus, type FileFacts, factsOf, type Range, strongEtag } from './answer.js';
import { inputOutputError, OtherFile, reasonOf, TryAgain } from './faults.js';
import type { HttpsOptions } from './options.js';

const CONNECTIONS = 16;
const PAUSES_MS = [500, 1_000, 2_000, 4_000, 8_000];
/** a server that sends nothing for so long is asked again */
const SILENCE_MS = 20_000;
const CONNECT_MS = 10_000;
/** a request that takes longer is shown as reconnecting */
const QUIET_MS = 2_000;
const MOST_REDIRECTS = 10;
const REMEMBER_MS = 60_000;
const REDIRECTS = [301, 302, 303, 307, 308];
/** addresses of redirects end: then the original one is asked again */
const EXPIRED = ['DENIED', 'NOT_FOUND'];

type Response = Dispatcher.ResponseData;

export class WebFile {
  readonly #options: HttpsOptions;
  readonly #agent: Agent;
  readonly #closing = new AbortController();
  readonly #tell: (state: ConnectionState) => void;
  /** the state that was told last */
  #told: ConnectionState['is'] = 'connected';
  #facts: FileFacts | null;
  #headers: Readonly<Record<string, string>>;
  /** where redirects have led to */
  #place: { readonly url: string; readonly untilMs: number } | null = null;
  /** why all requests fail; null: they do not */
  #refusal: FusetapError | null = null;
  /** requests that are tried again */
  #troubled = 0;

  private constructor(options: HttpsOptions, parts: WebFileParts) {
    this.#options = options;
    this.#headers = parts.headers;
    this.#facts = parts.facts;
    this.#tell = parts.tell;
    this.#agent = new Agent({
      connections: CONNECTIONS,
      headersTimeout: SILENCE_MS,
      bodyTimeout: SILENCE_MS,
      connect: { timeout: CONNECT_MS, ...(parts.ca !== null && { ca: parts.ca }) },
    });
  }

  /**
   * @param facts of an earlier server of the disk; null: the file is asked
   * @param tell is told when requests must wait, and when the file is another one
   * @throws FusetapError for files of options that cannot be read
   */
  static async open(
    options: HttpsOptions,
    facts: FileFacts | null,
    tell: (state: ConnectionState) => void = () => {},
  ): Promise<WebFile> {
    const ca = options.caFile === null ? null : await readOwn(options.caFile);
    const headers = await readHeaders(options.headerFile);
    return new WebFile(options, { ca, headers, facts, tell });
  }

  /** What the file is. @throws FusetapError if it cannot be reached now, or cannot be a disk */
  async probe(): Promise<FileFacts> {
    if (this.#facts !== null) return this.#facts;
    const response = await this.#respond({ offset: 0, length: 1 }).catch((error: unknown) => {
      throw this.#notReached(error);
    });
    await response.body.dump();
    this.#facts = factsOf(response.headers);
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
      throw inputOutputError('the disk is being detached');
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
    if (this.#closing.signal.aborted) return inputOutputError('the disk is being detached');
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
    const { headers, body } = await this.#respond(range);
    try {
      checkAnswer(headers, range, facts);
      let done = 0;
      for await (const chunk of body as AsyncIterable<Buffer>) {
        if (done + chunk.byteLength > to.byteLength) throw new OtherFile('the server sends more than was asked for');
        to.set(chunk, done);
        done += chunk.byteLength;
      }
      if (done < to.byteLength) throw new TryAgain('the server ended its answer early');
    } finally {
      body.on('error', () => {}).destroy();
    }
  }

  /** The answer that has bytes of the file. The caller reads or destroys its body. */
  async #respond(range: Range): Promise<Response> {
    try {
      return await this.#follow(range);
    } catch (error) {
      if (!(error instanceof FusetapError) || !EXPIRED.includes(error.code)) throw error;
      // the address of a redirect has ended, or a header was renewed
      const hasPlace = this.#place !== null;
      const renewed = await readHeaders(this.#options.headerFile);
      if (!hasPlace && JSON.stringify(renewed) === JSON.stringify(this.#headers)) throw error;
      this.#place = null;
      this.#headers = renewed;
      return await this.#follow(range);
    }
  }

  async #follow(range: Range): Promise<Response> {
    const place = this.#place !== null && performance.now() < this.#place.untilMs ? this.#place.url : null;
    let url = place ?? this.#options.url;
    for (let count = 0; count <= MOST_REDIRECTS; count++) {
      const response = await this.#ask(url, range);
      const { statusCode, headers, body } = response;
      if (!REDIRECTS.includes(statusCode)) {
        const error = errorOfStatus(response, url, this.#facts !== null);
        if (error === null) {
          if (url !== this.#options.url && place === null) this.#remember(url);
          return response;
        }
        // a whole file may follow: the connection is closed
        body.on('error', () => {}).destroy();
        throw error;
      }
      await body.dump();
      url = redirected(url, headers.location);
    }
    throw new FusetapError('FAILED', `the server redirects more than ${MOST_REDIRECTS} times`);
  }

  #remember(url: string): void {
    this.#place = { url, untilMs: performance.now() + REMEMBER_MS };
  }

  #ask(url: string, { offset, length }: Range): Promise<Response> {
    const etag = this.#facts === null ? null : strongEtag(this.#facts);
    // secrets are for the server that the user has named
    const isOwn = new URL(url).origin === new URL(this.#options.url).origin;
    return request(url, {
      dispatcher: this.#agent,
      signal: this.#closing.signal,
      headers: {
        ...(isOwn && this.#headers),
        range: `bytes=${offset}-${offset + length - 1}`,
        'accept-encoding': 'identity',
        'user-agent': 'fusetap',
        ...(etag !== null && { 'if-match': etag }),
      },
    });
  }

  /** Requests that wait fail. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#agent.destroy();
  }
}

interface WebFileParts {
  readonly ca: Buffer | null;
  readonly headers: Readonly<Record<string, string>>;
  readonly facts: FileFacts | null;
  readonly tell: (state: ConnectionState) => void;
}

const failure = (reason: unknown): { readonly reason: unknown } => ({ reason });

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
  const text = (await readOwn(path)).toString('utf8');
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

async function readOwn(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code === 'EACCES' ? 'DENIED' : 'NOT_FOUND';
    throw new FusetapError(code, `${named(path)} cannot be read: ${reasonOf(error)}`, { cause: error });
  }
}
