/**
 * What an answer to a request for a range says. All of it is hostile input, and is checked before any byte is used: bytes of
 * another file, or of another place of it, must never be taken for those that were asked for.
 */
import type { IncomingHttpHeaders } from 'undici/types/header.js';
import { FusetapError } from '../errors.js';
import { OtherFile, refusalOf, TryAgain } from './faults.js';

/** What identifies the file as long as it is attached. */
export interface FileFacts {
  readonly size: number;
  /** as the server writes it, also a weak one; null: the server gives none */
  readonly etag: string | null;
  /** null: the server tells none */
  readonly lastModified: string | null;
}

export interface Answer {
  readonly statusCode: number;
  readonly headers: IncomingHttpHeaders;
}

export interface Range {
  readonly offset: number;
  readonly length: number;
}

/** The longest pause that a server may ask for. */
const MOST_AFTER_MS = 60_000;

/** No file is larger than this; so the numbers of blocks are small enough for the table of the cache. */
export const MOST_BYTES = 2 ** 47;

/** The first answer: what the file is. @throws FusetapError if it cannot be a disk */
export function factsOf(headers: IncomingHttpHeaders): FileFacts {
  const { total } = contentRange(headers) ?? {};
  if (total === undefined) {
    throw new FusetapError('UNSUPPORTED', 'the server does not tell how long the file is', {
      hint: 'download it, and attach the file',
    });
  }
  if (total > MOST_BYTES) {
    throw new FusetapError('UNSUPPORTED', `the server says that the file has ${total} bytes`, {
      hint: 'check the URL: images have at most 128 TiB',
    });
  }
  if (isEncoded(headers)) {
    throw new FusetapError(
      'UNSUPPORTED',
      'the server sends the file compressed, so its ranges are not those of the disk',
      {
        hint: 'download it, and attach the file',
      },
    );
  }
  const [etag, lastModified] = [one(headers.etag), one(headers['last-modified'])];
  if (etag === null && lastModified === null) {
    throw new FusetapError('UNSUPPORTED', 'the server tells neither an ETag nor when the file was changed last', {
      hint: 'another file in its place would not be noticed: download it, and attach the file',
    });
  }
  return { size: total, etag, lastModified };
}

/** The validator for If-Match, which needs a strong one; null: there is none. */
export function strongEtag({ etag }: FileFacts): string | null {
  return etag?.startsWith('"') ? etag : null;
}

/**
 * Checks that an answer has the bytes of that range of that file.
 * @throws OtherFile
 * @throws TryAgain for an answer that a proxy may give for some time
 */
export function checkAnswer(headers: IncomingHttpHeaders, { offset, length }: Range, facts: FileFacts): void {
  if (isEncoded(headers)) throw new TryAgain('the server sends the file compressed');
  const range = contentRange(headers);
  if (range === null) throw new OtherFile('the server sends a range that it does not name');
  if (range.total !== facts.size) {
    throw new OtherFile(`the file has ${range.total} bytes now, and had ${facts.size} when it was attached`);
  }
  if (isReplaced(headers, facts)) throw replaced();
  if (range.first !== offset || range.last > offset + length - 1) {
    throw new OtherFile(`the server sends bytes ${range.first} to ${range.last} for those from ${offset}`);
  }
  if (range.last < offset + length - 1) throw new TryAgain('the server sends less than was asked for');
}

/** An answer that does not tell what the file was identified by may be of any file. */
function isReplaced(headers: IncomingHttpHeaders, facts: FileFacts): boolean {
  const lastModified = one(headers['last-modified']);
  if (facts.etag === null) return lastModified !== facts.lastModified;
  const isOther = lastModified !== null && facts.lastModified !== null && lastModified !== facts.lastModified;
  return isOther || one(headers.etag) !== facts.etag;
}

/**
 * The error for a status that has no bytes of the file; null for 206.
 * @param isKnown the file was identified: a server that sent ranges once will do so again
 */
export function errorOfStatus({ statusCode: status, headers }: Answer, url: string, isKnown: boolean): Error | null {
  if (status === 206) return null;
  if (status === 200 && isKnown) return new TryAgain(`${new URL(url).host} sends a whole file, no range`);
  if (status === 200) {
    return new FusetapError('UNSUPPORTED', 'the server sends only whole files, no ranges', {
      hint: 'download it, and attach the file',
    });
  }
  if (status === 412) return replaced();
  if (status === 416) return new OtherFile('the file ends before the range that was asked for');
  if (status === 408 || status === 429 || status >= 500) {
    return new TryAgain(`${new URL(url).host} answers ${status}`, retryAfterMs(one(headers['retry-after'])));
  }
  return refusalOf(status, url);
}

function replaced(): OtherFile {
  return new OtherFile('the file was replaced since it was attached');
}

function isEncoded(headers: IncomingHttpHeaders): boolean {
  const encoding = one(headers['content-encoding']);
  return encoding !== null && encoding !== 'identity';
}

interface ContentRange {
  readonly first: number;
  readonly last: number;
  readonly total: number;
}

function contentRange(headers: IncomingHttpHeaders): ContentRange | null {
  const [, first, last, total] = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(one(headers['content-range']) ?? '') ?? [];
  if (first === undefined) return null;
  const range = { first: Number(first), last: Number(last), total: Number(total) };
  return Number.isSafeInteger(range.total) && range.first <= range.last && range.last < range.total ? range : null;
}

function one(value: string | string[] | undefined): string | null {
  return typeof value === 'string' ? value : null;
}

function retryAfterMs(text: string | null): number {
  const seconds = Number(text ?? 0);
  const ms = Number.isNaN(seconds) ? Date.parse(text ?? '') - Date.now() : seconds * 1000;
  return ms > 0 ? Math.min(ms, MOST_AFTER_MS) : 0;
}
