/** The options of a disk of nbd. */
import { isAbsolute } from 'node:path';
import { FusetapError } from '../errors.js';
import { takeOptions } from '../options.js';
import { quoted } from '../quote.js';
import { isNbdUri, type NbdAddress, parseNbdUri, resolveNbdPaths } from './uri.js';

/** longer than every server needs for a request that it has accepted */
const DOUBT_MS = 30_000;
const MOST_SECONDS = 1_000_000;

export interface NbdOptions {
  readonly address: NbdAddress;
  /** null: never */
  readonly timeoutMs: number | null;
  readonly doubtMs: number;
  readonly isDurable: boolean;
}

/** @throws FusetapError USAGE */
export function parseOptions(options: Readonly<Record<string, string>>): NbdOptions {
  takeOptions('nbd', options, ['uri', 'timeout', 'doubt', 'durable']);
  const { uri, timeout = 'never', doubt, durable = 'no' } = options;
  if (uri === undefined || !isNbdUri(uri)) {
    throw new FusetapError(
      'USAGE',
      `driver nbd: ${uri === undefined ? 'no export is named' : `${quoted(uri)} is no NBD URI`}`,
      {
        hint: 'write nbd://HOST/EXPORT or nbd+unix:///EXPORT?socket=PATH',
      },
    );
  }
  const address = parseNbdUri(uri);
  resolveNbdPaths(address, (path) => {
    if (isAbsolute(path)) return path;
    throw new FusetapError('USAGE', `driver nbd: ${quoted(path)} is not absolute`, { hint: 'give the absolute path' });
  });
  if (durable !== 'yes' && durable !== 'no') throw wrong('durable', durable, 'yes or no');
  return {
    address,
    timeoutMs: timeout === 'never' ? null : seconds('timeout', timeout, 'a number of seconds, or never'),
    doubtMs: doubt === undefined ? DOUBT_MS : seconds('doubt', doubt, 'a number of seconds'),
    isDurable: durable === 'yes',
  };
}

function seconds(name: string, text: string, what: string): number {
  const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
  if (!(value <= MOST_SECONDS)) throw wrong(name, text, what);
  return value * 1000;
}

function wrong(name: string, text: string, what: string): FusetapError {
  return new FusetapError('USAGE', `driver nbd: ${name} is ${quoted(text)}`, { hint: `give ${name}=VALUE, ${what}` });
}
