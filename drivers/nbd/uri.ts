/**
 * Names of exports of NBD servers: the URIs of the NBD project, and QEMU's older words. The command line uses this file
 * without the code of the driver.
 *
 *      nbd://HOST[:10809]/EXPORT          nbds://[USER@]HOST[:PORT]/EXPORT?tls-certificates=DIR
 *      nbd+unix:///EXPORT?socket=PATH     nbds+unix:///EXPORT?socket=PATH&tls-psk-file=FILE
 *      nbd:HOST:PORT[:exportname=NAME]    nbd:unix:PATH[:exportname=NAME]
 *
 * Export names are free text. Printed URIs have no comma, so a disk spec never cuts them.
 */
import { FusetapError } from '../errors.js';
import { quoted } from '../quote.js';

const NBD_PORT = 10809;
/** by the protocol */
const MOST_NAME_BYTES = 4096;
/** sun_path, without the zero at its end */
const MOST_SOCKET_BYTES = 107;

export interface TlsWish {
  /** of a pre-shared key */
  readonly user: string | null;
  /** a directory with ca-cert.pem, and client-cert.pem with client-key.pem if the server wants to know its clients */
  readonly certificates: string | null;
  /** a file with lines USER:KEY, the key in hexadecimal */
  readonly pskFile: string | null;
  /** the name that the certificate of the server must have; null: the host */
  readonly hostname: string | null;
  /** false: whoever answers is trusted */
  readonly verifiesPeer: boolean;
}

export interface NbdAddress {
  /** null: over a unix socket */
  readonly host: string | null;
  readonly port: number;
  /** the path of the unix socket, which begins with a zero byte if it is an abstract one; null: over TCP */
  readonly socket: string | null;
  readonly exportName: string;
  /** null: without encryption */
  readonly tls: TlsWish | null;
}

/** Whether a text can only be the name of an export: a URI, or one of QEMU's older forms. */
export function isNbdUri(text: string): boolean {
  return /^nbds?(\+unix)?:/.test(text);
}

/** @throws FusetapError USAGE */
export function parseNbdUri(text: string): NbdAddress {
  const [, secure, unix, authority = '', path, query] =
    /^nbd(s?)(\+unix)?:\/\/([^/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/.exec(text) ?? [];
  const address = secure === undefined ? parseOlder(text) : null;
  if (address !== null) return address;
  const given = parseQuery(text, query ?? '');
  const { user, host, port } = parseAuthority(text, authority);
  const exportName = checkName(text, decoded(text, path ?? ''));
  if ((unix === undefined) !== (host !== null)) {
    throw wrong(
      text,
      unix ? 'it has a host and a socket' : 'it has no host',
      'nbd+unix:///EXPORT?socket=PATH names a socket',
    );
  }
  const socket = given.get('socket') ?? null;
  if (unix && socket === null) throw wrong(text, 'it has no socket', 'add ?socket=PATH');
  if (!unix && socket !== null)
    throw wrong(text, 'it has a host and a socket', 'a socket is nbd+unix:///EXPORT?socket=PATH');
  if (socket !== null) checkSocket(text, socket);
  return { host, port, socket, exportName, tls: tlsOf(text, secure === 's', user, given) };
}

/** The canonical URI: parsing it gives the same address. */
export function printNbdUri({ host, port, socket, exportName, tls }: NbdAddress): string {
  const user = tls?.user == null ? '' : `${encodeURIComponent(tls.user)}@`;
  const named = host === null ? '' : host.includes(':') ? `[${host}]` : host;
  const authority = host === null ? user : `${user}${named}${port === NBD_PORT ? '' : `:${port}`}`;
  const query = [
    ['socket', socket],
    ['tls-certificates', tls?.certificates],
    ['tls-psk-file', tls?.pskFile],
    ['tls-hostname', tls?.hostname],
    ['tls-verify-peer', tls?.verifiesPeer === false ? '0' : null],
  ].flatMap(([key, value]) => (value == null ? [] : [`${key}=${encoded(value)}`]));
  const scheme = `nbd${tls === null ? '' : 's'}${socket === null ? '' : '+unix'}`;
  return `${scheme}://${authority}/${encoded(exportName)}${query.length === 0 ? '' : `?${query.join('&')}`}`;
}

/** The address with absolute paths. @param resolve makes a path absolute */
export function resolveNbdPaths(address: NbdAddress, resolve: (path: string) => string): NbdAddress {
  const absolute = (path: string | null): string | null =>
    path === null || path.startsWith('\0') ? path : resolve(path);
  const { socket, tls } = address;
  const certificates = absolute(tls?.certificates ?? null);
  const pskFile = absolute(tls?.pskFile ?? null);
  return { ...address, socket: absolute(socket), tls: tls && { ...tls, certificates, pskFile } };
}

export const nbdUris = {
  driver: 'nbd',
  matches: isNbdUri,
  canonical: (text: string, resolve: (path: string) => string): string =>
    printNbdUri(resolveNbdPaths(parseNbdUri(text), resolve)),
  instead: 'only the disk of the NBD server itself can be attached; qemu-nbd -f qcow2 shows the disk of an image',
};

/** QEMU's words before it had URIs. @throws FusetapError USAGE */
function parseOlder(text: string): NbdAddress {
  const [, place = '', name = ''] = /^nbd:(.*?)(?::exportname=(.*))?$/s.exec(text) ?? [];
  const exportName = checkName(text, name);
  const [, socket] = /^unix:(.+)$/s.exec(place) ?? [];
  if (socket !== undefined) {
    checkSocket(text, socket);
    return { host: null, port: NBD_PORT, socket, exportName, tls: null };
  }
  const [, bracketed, plain, digits] = /^(?:\[([^\]]+)\]|([^:/[\]]+)):(\d+)$/.exec(place) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined || digits === undefined) throw wrong(text, 'it is not a name of an export', FORMS);
  return { host: checkHost(text, host), port: portOf(text, digits), socket: null, exportName, tls: null };
}

function parseAuthority(text: string, authority: string): { user: string | null; host: string | null; port: number } {
  const [, userInfo, bracketed, plain, digits] =
    /^(?:([^@]*)@)?(?:\[([^\]]+)\]|([^:@[\]]*))(?::(\d*))?$/.exec(authority) ?? [];
  if (plain === undefined && bracketed === undefined) throw wrong(text, `${quoted(authority)} is not a host`, FORMS);
  if (userInfo?.includes(':')) throw wrong(text, 'it has a password', 'name a file with the key: tls-psk-file=FILE');
  const host = bracketed ?? decoded(text, plain ?? '');
  const user = userInfo === undefined || userInfo === '' ? null : decoded(text, userInfo);
  const port = digits === undefined || digits === '' ? NBD_PORT : portOf(text, digits);
  return { user, host: host === '' ? null : checkHost(text, host), port };
}

const KEYS = ['socket', 'tls-certificates', 'tls-psk-file', 'tls-hostname', 'tls-verify-peer'] as const;

function parseQuery(text: string, query: string): Map<(typeof KEYS)[number], string> {
  const found = new Map<(typeof KEYS)[number], string>();
  for (const pair of query.split(/[&;]/).filter((each) => each !== '')) {
    const [name = '', value = ''] = pair.split(/=(.*)/s);
    const key = KEYS.find((known) => known === decoded(text, name));
    if (key === undefined)
      throw wrong(text, `it has no parameter ${quoted(name)}`, `parameters are ${KEYS.join(', ')}`);
    if (found.has(key)) throw wrong(text, `${key} is given twice`, 'give it once');
    const plain = decoded(text, value);
    if (plain === '') throw wrong(text, `${key} has no value`, `give ${key}=VALUE`);
    if (key !== 'socket' && /\p{Cc}/u.test(plain)) throw wrong(text, `${key} has a control character`, 'remove it');
    found.set(key, plain);
  }
  return found;
}

function tlsOf(
  text: string,
  isSecure: boolean,
  user: string | null,
  given: ReadonlyMap<(typeof KEYS)[number], string>,
): TlsWish | null {
  const verify = given.get('tls-verify-peer') ?? '1';
  if (!['0', '1', 'yes', 'no', 'true', 'false'].includes(verify)) {
    throw wrong(text, `tls-verify-peer is ${quoted(verify)}`, 'use 1 or 0');
  }
  const tls: TlsWish = {
    user,
    certificates: given.get('tls-certificates') ?? null,
    pskFile: given.get('tls-psk-file') ?? null,
    hostname: given.get('tls-hostname') ?? null,
    verifiesPeer: ['1', 'yes', 'true'].includes(verify),
  };
  if (isSecure) {
    if (tls.certificates === null || tls.pskFile === null) return tls;
    throw wrong(text, 'it has certificates and a pre-shared key', 'give one of them');
  }
  const asked = user === null ? [...given.keys()].find((key) => key !== 'socket') : 'a user';
  // without encryption it would mean nothing, and the user may believe that the connection is safe
  if (asked !== undefined) throw wrong(text, `${asked} is for encrypted connections`, 'write nbds: in place of nbd:');
  return null;
}

function portOf(text: string, digits: string): number {
  const port = Number(digits);
  if (port >= 1 && port <= 65_535) return port;
  throw wrong(text, `there is no port ${digits}`, 'a port is 1 to 65535');
}

function checkHost(text: string, host: string): string {
  if (/^[\p{L}\p{N}._:%-]+$/u.test(host)) return host.toLowerCase();
  throw wrong(text, `${quoted(host)} is not a host`, FORMS);
}

function checkName(text: string, name: string): string {
  if (Buffer.byteLength(name) > MOST_NAME_BYTES) {
    throw wrong(text, 'the name of the export is too long', `it has at most ${MOST_NAME_BYTES} bytes`);
  }
  if (!name.includes('\0')) return name;
  throw wrong(text, 'the name of the export has a zero byte', 'remove it');
}

function checkSocket(text: string, socket: string): void {
  if (Buffer.byteLength(socket) > MOST_SOCKET_BYTES) {
    throw wrong(
      text,
      'the path of the socket is too long',
      `it has at most ${MOST_SOCKET_BYTES} bytes: link to its directory`,
    );
  }
  if (socket.lastIndexOf('\0') > 0 || socket === '\0')
    throw wrong(text, 'the path of the socket has a zero byte', 'remove it');
}

function decoded(text: string, part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw wrong(text, `${quoted(part)} is not percent-encoded UTF-8`, 'write %25 for a percent sign');
  }
}

function encoded(part: string): string {
  return encodeURIComponent(part).replaceAll('%2F', '/').replaceAll('%3A', ':');
}

const FORMS = 'write nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH';

function wrong(text: string, why: string, hint: string): FusetapError {
  return new FusetapError('USAGE', `${quoted(text)}: ${why}`, { hint });
}
