/** The options of a disk of https. */
import { isAbsolute } from 'node:path';
import { FusetapError } from '../errors.js';
import { type NamedOption, takeOptions, takeSeconds, wrongOption } from '../options.js';
import { parseSize } from '../parse-size.js';
import { canonicalUrl } from './uri.js';

const TIMEOUT_MS = 60_000;
const CACHE_BYTES = 64 << 20;
const LEAST_CACHE_BYTES = 1 << 20;
const MOST_CACHE_BYTES = 16 * 2 ** 30;

export interface HttpsOptions {
  readonly url: string;
  /** for how long a request is tried again; null: for ever */
  readonly timeoutMs: number | null;
  readonly cacheBytes: number;
  /** has lines `Name: value`; null: none */
  readonly headerFile: string | null;
  /** the authorities that are trusted, in place of those that Node knows; null: those */
  readonly caFile: string | null;
}

/** @throws FusetapError USAGE */
export function parseOptions(options: Readonly<Record<string, string>>): HttpsOptions {
  takeOptions('https', options, ['uri', 'timeout', 'cache', 'header-file', 'ca-file']);
  const { uri, timeout, cache } = options;
  if (uri === undefined) {
    throw new FusetapError('USAGE', 'driver https: no URL is given', { hint: 'write https://HOST/PATH' });
  }
  return {
    url: canonicalUrl(uri),
    timeoutMs: timeout === undefined ? TIMEOUT_MS : parseTimeout(timeout),
    cacheBytes: cache === undefined ? CACHE_BYTES : parseCache(cache),
    headerFile: absolute('header-file', options['header-file']),
    caFile: absolute('ca-file', options['ca-file']),
  };
}

function parseTimeout(text: string): number | null {
  if (text === 'never') return null;
  return takeSeconds(named('timeout'), text, 'a number of seconds, or never');
}

function parseCache(text: string): number {
  const bytes = parseSize(text, 'driver https: cache');
  if (bytes >= LEAST_CACHE_BYTES && bytes <= MOST_CACHE_BYTES) return bytes;
  throw wrongOption(named('cache'), text, 'from 1M to 16G');
}

function absolute(name: string, path: string | undefined): string | null {
  if (path === undefined) return null;
  if (isAbsolute(path)) return path;
  throw wrongOption(named(name), path, 'an absolute path');
}

const named = (name: string): NamedOption => ({ driver: 'https', name });
