/** Encrypts the stream to an NBD server, with certificates or a pre-shared key, as libnbd and QEMU do. */
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import { trustExtraCertificates } from '../../system/extra-certificates.js';
import { FusetapError } from '../errors.js';
import { named, quoted } from '../quote.js';
import { readNamedFile, reasonOf } from '../remote/faults.js';
import { PSK_CIPHERS, parseKeys } from './psk.js';
import type { NbdAddress, TlsWish } from './uri.js';

/** Makes the encrypted socket. Files are read each time: certificates are renewed. @throws FusetapError */
export async function encryptedSocket(socket: Socket, address: NbdAddress, signal: AbortSignal): Promise<Socket> {
  const { tls } = address;
  if (tls === null) throw new TypeError('the address has no TLS');
  const options = tls.pskFile === null ? await certificateOptions(address, tls) : await pskOptions(tls, tls.pskFile);
  signal.throwIfAborted();
  trustExtraCertificates();
  return await new Promise((resolve, reject) => {
    const secure = connect({ socket, ...options, minVersion: 'TLSv1.2' });
    const failed = (error: unknown): void => {
      secure.destroy();
      reject(notEncrypted(error, address));
    };
    const abort = (): void => failed(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    secure.once('secureConnect', () => {
      signal.removeEventListener('abort', abort);
      secure.removeListener('error', failed);
      secure.removeListener('close', closed);
      if (tls.pskFile !== null && !isByKey(secure)) failed(new Error('the server shows a certificate, not the key'));
      else resolve(secure);
    });
    const closed = (): void => failed(new Error('the server closed the connection'));
    secure.once('error', failed);
    secure.once('close', closed);
  });
}

/** Who has the key shows no certificate. A server without the key may have one that this machine trusts. */
function isByKey(secure: TLSSocket): boolean {
  return Object.keys(secure.getPeerCertificate()).length === 0;
}

async function certificateOptions({ host }: NbdAddress, tls: TlsWish): Promise<ConnectionOptions> {
  const { certificates, hostname, verifiesPeer } = tls;
  const name = hostname ?? host;
  const checks: ConnectionOptions = {
    rejectUnauthorized: verifiesPeer,
    // a socket has no name: only who has signed the certificate counts then
    ...(name === null ? { checkServerIdentity: () => undefined } : { servername: isIp(name) ? '' : name, host: name }),
  };
  if (certificates === null) return checks;
  const ca = await optional(join(certificates, 'ca-cert.pem'));
  const cert = await optional(join(certificates, 'client-cert.pem'));
  const key = await optional(join(certificates, 'client-key.pem'));
  if (ca === undefined && verifiesPeer) {
    throw new FusetapError('NOT_FOUND', `${named(certificates)} has no ca-cert.pem`, {
      hint: 'tls-certificates names a directory with ca-cert.pem, client-cert.pem and client-key.pem',
    });
  }
  return { ...checks, ...(ca && { ca }), ...(cert && key && { cert, key }) };
}

function isIp(name: string): boolean {
  return name.includes(':') || /^[\d.]+$/.test(name);
}

async function optional(path: string): Promise<Buffer | undefined> {
  return await readNamedFile(path).catch((error: FusetapError) => {
    if ((error.cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  });
}

async function pskOptions({ user }: TlsWish, path: string): Promise<ConnectionOptions> {
  const keys = parseKeys((await readNamedFile(path)).toString());
  const found = user === null ? keys[0] : keys.find(({ name }) => name === user);
  if (found === undefined) {
    throw new FusetapError('NOT_FOUND', `${named(path)} has no key${user === null ? '' : ` of user ${quoted(user)}`}`, {
      hint: 'its lines are USER:KEY, the key in hexadecimal; psktool makes them',
    });
  }
  const { psk } = found;
  return {
    ciphers: PSK_CIPHERS,
    // the key proves who the server is: it has no certificate
    checkServerIdentity: () => undefined,
    pskCallback: () => ({ psk, identity: found.name }),
  };
}

function notEncrypted(error: unknown, { host, tls }: NbdAddress): unknown {
  if (error instanceof FusetapError) return error;
  const hint =
    tls?.pskFile == null
      ? `the certificate must be of ${tls?.hostname ?? host ?? 'a known authority'}: see tls-hostname and tls-certificates`
      : 'server and client need the same key of the same user';
  return new FusetapError('DENIED', `no encrypted connection: ${reasonOf(error)}`, { hint, cause: error });
}
