/**
 * The address of `--listen`. Only this machine can reach a loopback address; any other one must be asked for twice, because what
 * is sent there can be read on the way.
 */
import { isIP } from 'node:net';
import { FusetapError } from '../../drivers/errors.js';
import { quoted } from '../../drivers/quote.js';

export interface ListenAddress {
  /** an IP address */
  readonly host: string;
  /** 0: a free one */
  readonly port: number;
  readonly isLoopback: boolean;
}

/** @throws FusetapError USAGE for a word that is no address; DENIED for one that is not loopback, unless `allowRemote` */
export function parseListen(word: string, allowRemote: boolean): ListenAddress {
  const [, bracketed, plain, digits = ''] = /^(?:\[([^\]]*)\]:|([^:]*):)?(\d{1,5})$/.exec(word) ?? [];
  const name = bracketed ?? plain ?? 'localhost';
  const host = name === 'localhost' ? '127.0.0.1' : name;
  const port = Number(digits);
  if (digits === '' || port > 65_535 || isIP(host) === 0 || (bracketed !== undefined && isIP(host) !== 6)) {
    throw new FusetapError('USAGE', `--listen ${quoted(word)} is not an address and a port`, {
      hint: 'for example 127.0.0.1:8000 or [::1]:8000; port 0 is a free one',
    });
  }
  const isLoopback = isLoopbackAddress(host);
  if (isLoopback || allowRemote) return { host, port, isLoopback };
  throw new FusetapError('DENIED', `other machines can reach ${host}, and the page is sent without encryption`, {
    hint: 'listen on 127.0.0.1 and use ssh -L, or add --allow-remote',
  });
}

/** Whether only this machine can reach an IP address. */
export function isLoopbackAddress(host: string): boolean {
  return (isIP(host) === 4 && host.startsWith('127.')) || host === '::1';
}
