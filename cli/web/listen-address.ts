/**
 * The address of `--listen`. Only this machine can reach a loopback address; any other one must be asked for twice, because what
 * is sent there can be read on the way.
 */
import { isIP } from 'node:net';
import { FusetapError } from '../../drivers/errors.js';
import { quoted } from '../../drivers/quote.js';
import type { ListenPlace } from '../watching/options.js';
import { isLoopbackAddress } from '../watching/own-host.js';

/** The host is an IP address; port 0 is a free one. */
export interface ListenAddress extends ListenPlace {
  readonly isLoopback: boolean;
}

/** What can be read on the way, and what to do about it. */
export interface PlainText {
  readonly what: string;
  readonly hint: string;
}

const PAGE: PlainText = { what: 'the page', hint: 'listen on 127.0.0.1 and use ssh -L, or add --allow-remote' };

/**
 * @param sent what is sent there
 * @throws FusetapError USAGE for a name; DENIED for an address that is not loopback, unless `allowRemote`
 */
export function checkListen(
  { host: word, port }: ListenPlace,
  allowRemote: boolean,
  sent: PlainText = PAGE,
): ListenAddress {
  const host = word === 'localhost' ? '127.0.0.1' : word;
  if (isIP(host) === 0) {
    throw new FusetapError('USAGE', `--listen: ${quoted(word)} is not an IP address`, {
      hint: 'for example 127.0.0.1:8000 or [::1]:8000',
    });
  }
  const isLoopback = isLoopbackAddress(host);
  if (isLoopback || allowRemote) return { host, port, isLoopback };
  throw new FusetapError('DENIED', `other machines can reach ${host}, and ${sent.what} is sent without encryption`, {
    hint: sent.hint,
  });
}
