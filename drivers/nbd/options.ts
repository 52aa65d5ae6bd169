/** The options of a disk of nbd. */
import { isAbsolute } from 'node:path';
import { FusetapError } from '../errors.js';
import { type NamedOption, takeOptions, takeSeconds, wrongOption } from '../options.js';
import { quoted } from '../quote.js';
import { isNbdUri, type NbdAddress, parseNbdUri, resolveNbdPaths } from './uri.js';

/** longer than every server needs for a request that it has accepted */
const DOUBT_MS = 30_000;

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
  if (durable !== 'yes' && durable !== 'no') throw wrongOption(named('durable'), durable, 'yes or no');
  return {
    address,
    timeoutMs: timeout === 'never' ? null : takeSeconds(named('timeout'), timeout, 'a number of seconds, or never'),
    doubtMs: doubt === undefined ? DOUBT_MS : takeSeconds(named('doubt'), doubt, 'a number of seconds'),
    isDurable: durable === 'yes',
  };
}

const named = (name: string): NamedOption => ({ driver: 'nbd', name });
