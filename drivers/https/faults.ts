/** The errors of the driver: what a web server answers, and what makes a disk useless. */
import { constants } from 'node:os';
import { FusetapError } from '../errors.js';

const { errno: E } = constants;

/** Perhaps another try succeeds. */
export class TryAgain extends Error {
  override readonly name = 'TryAgain';
  /** how long the server asks to wait */
  readonly afterMs: number;

  constructor(message: string, afterMs = 0) {
    super(message);
    this.afterMs = afterMs;
  }
}

/** The file is not what it was when it was attached, or is served in another way: no other request will change that. */
export class OtherFile extends Error {
  override readonly name = 'OtherFile';
}

/** What a server says of a file, for a message. */
export function refusalOf(status: number, url: string): FusetapError {
  const { host } = new URL(url);
  switch (status) {
    case 401:
    case 403:
    case 407:
      return new FusetapError('DENIED', `${host} answers ${status}: it wants to know who asks`, {
        errno: E.EIO,
        hint: 'give a header, as Authorization: Bearer …, in a file: --option header-file=/PATH',
      });
    case 404:
    case 410:
      return new FusetapError('NOT_FOUND', `${host} answers ${status}: it has no such file`, {
        errno: E.EIO,
        hint: 'check the URL with curl -I',
      });
    default:
      return new FusetapError('FAILED', `${host} answers ${status}`, {
        errno: E.EIO,
        hint: 'try the URL with curl -I',
      });
  }
}
