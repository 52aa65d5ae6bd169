/** Certificates and keys for encrypted connections, made by openssl. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

function openssl(directory: string, ...words: string[]): void {
  execFileSync('openssl', words, { cwd: directory, stdio: 'ignore' });
}

/**
 * A directory with an authority, a server of the name localhost, and a client, under the names that libnbd, QEMU and
 * nbdkit use; keys.psk has keys of alice and bob.
 */
export function makeCertificates(): string {
  const directory = mkdtempSync(join(tmpdir(), 'tls-'));
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const authority = ['-keyout', 'ca-key.pem', '-out', 'ca-cert.pem', '-days', '30', '-subj', '/CN=test'];
  openssl(directory, 'req', '-x509', ...key, ...authority);
  for (const name of ['server', 'client']) {
    writeFileSync(join(directory, `${name}.ext`), 'subjectAltName=DNS:localhost\n');
    openssl(directory, 'req', ...key, '-keyout', `${name}-key.pem`, '-out', `${name}.csr`, '-subj', '/CN=localhost');
    const signer = ['-CA', 'ca-cert.pem', '-CAkey', 'ca-key.pem', '-CAcreateserial', '-days', '30'];
    const files = ['-in', `${name}.csr`, '-extfile', `${name}.ext`, '-out', `${name}-cert.pem`];
    openssl(directory, 'x509', '-req', ...files, ...signer);
  }
  const keys = ['alice:00112233445566778899aabbccddeeff', 'bob:ffeeddccbbaa99887766554433221100'];
  writeFileSync(join(directory, 'keys.psk'), `${keys.join('\n')}\n`);
  return directory;
}
