/**
 * Who may have an answer. A request must have the secret of this page in its path, and must not come from another page:
 *
 *      Host     an IP address or localhost: a name could belong to a page that points it to this machine (DNS rebinding)
 *      Origin   if there is one, this page
 *      path     /SECRET/…
 *
 * The secret is in the path and in no cookie, because cookies of one port are sent to all ports of a host, and so to programs of
 * other users. Pages of ours send no Referer.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { addressOfHost, isLoopbackAddress } from '../watching/own-host.js';

const SECRET_BYTES = 24;

/** What decides about a request. */
export interface Asked {
  readonly host: string | undefined;
  readonly origin: string | undefined;
  /** of fetch metadata: which page sends the request */
  readonly site: string | undefined;
  readonly url: string;
}

/** What a request asks for. */
export interface Target {
  readonly pathname: string;
  readonly searchParams: URLSearchParams;
}

export class Guard {
  /** 192 random bits */
  readonly secret = randomBytes(SECRET_BYTES).toString('base64url');
  readonly #isLoopback: boolean;

  /** @param isLoopback only this machine can connect */
  constructor(isLoopback: boolean) {
    this.#isLoopback = isLoopback;
  }

  /** What a request asks for, behind the secret; or why it gets no answer. */
  judge({ host, origin, site, url }: Asked): { readonly target: Target } | { readonly refused: string } {
    if (host === undefined || !this.#isOurs(host)) return { refused: 'the Host of the request is not this page' };
    const isOwn = origin === undefined || origin === `http://${host}`;
    if (!isOwn || (site !== undefined && site !== 'same-origin' && site !== 'none')) {
      return { refused: 'the request comes from another page' };
    }
    const [, given = '', rest = ''] = /^\/([^/?]*)(\/.*)?$/s.exec(url) ?? [];
    if (!isEqual(given, this.secret)) return { refused: 'the address has not the secret that fusetap web has printed' };
    // not by the parser of URLs: it throws for some, and what it makes of others is not what was sent
    const [path = '', query = ''] = rest.split(/\?(.*)/s);
    return { target: { pathname: `/${path.replace(/^\/+/, '')}`, searchParams: new URLSearchParams(query) } };
  }

  #isOurs(host: string): boolean {
    const address = addressOfHost(host);
    return address !== null && (!this.#isLoopback || isLoopbackAddress(address));
  }
}

/** Takes the same time wherever the texts differ. */
function isEqual(one: string, other: string): boolean {
  const [a, b] = [one, other].map((text) => createHash('sha256').update(text).digest()) as [Buffer, Buffer];
  return timingSafeEqual(a, b);
}
