/** The errors of the driver: what an NBD server answers, and what makes a connection or a disk useless. */
import { constants } from 'node:os';
import { FusetapError } from '../errors.js';

const { errno: E } = constants;

/** The server does not keep to the protocol: what follows in its stream means nothing. */
export class ProtocolFault extends Error {
  override readonly name = 'ProtocolFault';
}

/** The export is not what it was when it was attached: no other connection will change that. */
export class OtherExport extends Error {
  override readonly name = 'OtherExport';
}

/** The bus does not keep a connection for its next server: that says nothing of the NBD server. */
export class NotKept extends Error {
  override readonly name = 'NotKept';
}

/** The errors that the protocol has, by their numbers, which are those of Linux. */
const ERRNO_OF: ReadonlyMap<number, number> = new Map([
  [1, E.EPERM],
  [28, E.ENOSPC],
  [95, E.EOPNOTSUPP],
]);
/** the server is going down: the request is sent again on the next connection */
export const SHUTTING_DOWN = 108;

/** What the server says, as the end of a message. It is hostile text, which goes to logs and terminals. */
export function saidText(text: string): string {
  const plain = text.replace(/[\p{Cc}\p{Cf}]/gu, '?').slice(0, 200);
  return plain === '' ? '' : `: ${plain}`;
}

/** The error of a request. @param text of the server, for people; may be empty */
export function replyError(number: number, text: string, isReadOnly: boolean): FusetapError {
  const errno = number === 1 && isReadOnly ? E.EROFS : (ERRNO_OF.get(number) ?? E.EIO);
  const code = errno === E.ENOSPC ? 'NO_SPACE' : errno === E.EOPNOTSUPP ? 'UNSUPPORTED' : 'FAILED';
  return new FusetapError(code, `the NBD server answers error ${number}${saidText(text)}`, { errno });
}

/** The code of a failed system call, as `ECONNREFUSED`. */
export function systemCode(error: unknown): string {
  return String((error as { code?: unknown } | null)?.code ?? '');
}
