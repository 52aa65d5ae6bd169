/** Encrypts the stream of a client, with certificates or pre-shared keys, as nbdkit and qemu-nbd do. */
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { createSecureContext, createServer, type TlsOptions } from 'node:tls';
import { FusetapError } from '../../drivers/errors.js';
import { PSK_CIPHERS, parseKeys } from '../../drivers/nbd/psk.js';
import { named } from '../../drivers/quote.js';
import { readNamedFile } from '../../drivers/remote/faults.js';

export interface TlsFiles {
  /** a directory with server-cert.pem, server-key.pem and ca-cert.pem; null if the clients have keys */
  readonly certificates: string | null;
  /** whether a client must have a certificate that the authority in ca-cert.pem has signed */
  readonly verifiesPeer: boolean;
  /** lines USER:KEY; null if certificates are used */
  readonly pskFile: string | null;
}

const HINT = '--tls DIR is a directory with server-cert.pem, server-key.pem and, for --tls-verify-peer, ca-cert.pem';

/** Reads the files anew: certificates are renewed. @throws FusetapError NOT_FOUND, DENIED */
export async function readTlsFiles({ certificates, verifiesPeer, pskFile }: TlsFiles): Promise<TlsOptions> {
  if (pskFile !== null) {
    const keys = new Map(
      parseKeys((await readNamedFile(pskFile, HINT)).toString()).map(({ name, psk }) => [name, psk]),
    );
    if (keys.size === 0) {
      throw new FusetapError('NOT_FOUND', `${named(pskFile)} has no key`, {
        hint: 'its lines are USER:KEY, the key in hexadecimal; psktool makes them',
      });
    }
    return { ciphers: PSK_CIPHERS, pskCallback: (_, identity) => keys.get(identity) ?? null };
  }
  const directory = certificates ?? '';
  const cert = await readNamedFile(join(directory, 'server-cert.pem'), HINT);
  const key = await readNamedFile(join(directory, 'server-key.pem'), HINT);
  if (!verifiesPeer) return { cert, key };
  const ca = await readNamedFile(join(directory, 'ca-cert.pem'), HINT);
  return { cert, key, ca, requestCert: true, rejectUnauthorized: true };
}

/** @throws FusetapError as readTlsFiles; USAGE for files that are no certificate and its key */
export async function checkTlsFiles(files: TlsFiles): Promise<void> {
  const options = await readTlsFiles(files);
  try {
    createSecureContext(options);
  } catch (error) {
    throw new FusetapError('USAGE', `${named(files.certificates ?? '')}: ${(error as Error).message}`, {
      hint: 'server-cert.pem must be a certificate, and server-key.pem its key, both as PEM',
      cause: error,
    });
  }
}

/** The encrypted stream over a socket that nobody reads. Rejects if the client is not allowed, or has gone. */
export function encryptedServerSocket(socket: Socket, options: TlsOptions): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const server = createServer({ ...options, minVersion: 'TLSv1.2' });
    server.once('secureConnection', resolve);
    server.once('tlsClientError', reject);
    socket.once('close', () => reject(new Error('the client has left')));
    server.emit('connection', socket);
  });
}
