/**
 * Judges the Host of a request. A name could belong to a page of somebody else that points it to this machine (DNS rebinding),
 * and a browser would let that page read the answer. An address cannot be pointed elsewhere.
 */
import { isIP } from 'node:net';

/** The IP address that the Host of a request has; null if it has a name other than localhost. Any port: ssh -L may have another one. */
export function addressOfHost(host: string): string | null {
  const [, bracketed, plain] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+))(?::\d{1,5})?$/.exec(host) ?? [];
  const name = (bracketed ?? plain ?? '').toLowerCase();
  if (name === 'localhost') return '127.0.0.1';
  const isAddress = bracketed === undefined ? isIP(name) !== 0 : isIP(name) === 6;
  return isAddress ? name : null;
}

/** Whether only this machine can reach an IP address. */
export function isLoopbackAddress(host: string): boolean {
  return (isIP(host) === 4 && host.startsWith('127.')) || host === '::1';
}
