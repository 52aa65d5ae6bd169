/** Encrypted connections to real servers: with certificates and with a pre-shared key; never a plain one in their place. */
import { execFile } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { frontDisk } from '../../../drivers/disk.js';
import { freePort } from '../../e2e/command.js';
import { makeCertificates } from './certificates.js';
import { openNbd } from './open.js';
import { NbdServer, nbdkit, uriOf, whyNoServers } from './servers.js';

t.setTimeout(300_000);

const skip = whyNoServers('openssl');

async function works(t: Test, uri: string): Promise<void> {
  const disk = frontDisk(await openNbd(uri), { readOnly: false });
  const bytes = Buffer.alloc(300_000, 'secret');
  await disk.write(bytes, 1000);
  await disk.flush();
  const back = Buffer.alloc(bytes.length);
  await disk.read(back, 1000);
  t.ok(back.equals(bytes), uri.slice(0, 40));
  await disk.close();
}

t.test('certificates', { skip }, async (t) => {
  const directory = makeCertificates();
  const query = `tls-certificates=${directory}`;
  const port = await freePort();
  const kit = new NbdServer(
    'nbdkit',
    [
      '-f',
      '-i',
      '127.0.0.1',
      '-p',
      String(port),
      '--tls=require',
      `--tls-certificates=${directory}`,
      '--tls-verify-peer',
      'memory',
      '1M',
    ],
    { port },
  );
  const qemuPort = await freePort();
  writeFileSync(join(directory, 'disk.raw'), Buffer.alloc(1 << 20));
  const creds = `tls-creds-x509,id=t0,endpoint=server,dir=${directory},verify-peer=on`;
  const qemu = new NbdServer(
    'qemu-nbd',
    [
      ...['-t', '-e', '2', '-b', '127.0.0.1', '-p', String(qemuPort), '--object', creds, '--tls-creds', 't0'],
      '-f',
      'raw',
      join(directory, 'disk.raw'),
    ],
    { port: qemuPort },
  );
  for (const server of [kit, qemu]) {
    t.teardown(() => server.kill());
    await server.start();
  }
  await works(t, `nbds://localhost:${port}/?${query}`);
  await works(t, `nbds://localhost:${qemuPort}/?${query}`);
  await works(t, `nbds://127.0.0.1:${port}/?${query}&tls-hostname=localhost`);
  const named = openNbd(`nbds://127.0.0.1:${port}/?${query}&tls-hostname=other.example`);
  await t.rejects(named, { code: 'DENIED', message: /no encrypted connection/ }, 'another name');
  const unknown = openNbd(`nbds://localhost:${port}/`);
  await t.rejects(unknown, { code: 'DENIED', message: /no encrypted connection/ }, 'an authority that nobody knows');
  await t.rejects(
    openNbd(`nbd://localhost:${port}/`),
    { code: 'DENIED', hint: /nbds:/ },
    'a plain connection is refused',
  );
  const missing = openNbd(`nbds://localhost:${port}/?tls-certificates=${directory}/none`);
  await t.rejects(missing, { code: 'NOT_FOUND', message: /ca-cert/ }, 'no files');
});

t.test('pre-shared keys', { skip }, async (t) => {
  const directory = makeCertificates();
  const port = await freePort();
  const keys = join(directory, 'keys.psk');
  const server = new NbdServer(
    'nbdkit',
    ['-f', '-i', '127.0.0.1', '-p', String(port), '--tls=require', `--tls-psk=${keys}`, 'memory', '1M'],
    { port },
  );
  t.teardown(() => server.kill());
  await server.start();
  await works(t, `nbds://127.0.0.1:${port}/?tls-psk-file=${keys}`);
  await works(t, `nbds://bob@127.0.0.1:${port}/?tls-psk-file=${keys}`);
  const nobody = openNbd(`nbds://carol@127.0.0.1:${port}/?tls-psk-file=${keys}`);
  await t.rejects(nobody, { code: 'NOT_FOUND', message: /no key of user/ });
  writeFileSync(join(directory, 'wrong.psk'), 'alice:1234\n');
  const wrong = openNbd(`nbds://127.0.0.1:${port}/?tls-psk-file=${join(directory, 'wrong.psk')}`);
  await t.rejects(wrong, { code: 'DENIED' }, 'another key');
});

/** Connects in a process that trusts the authority as the world trusts a public one. @returns what it says */
function inTrustingProcess(directory: string, uri: string, variable = 'NODE_EXTRA_CA_CERTS'): Promise<string> {
  const open = new URL('./open.js', import.meta.url).href;
  const program = `import { openNbd } from ${JSON.stringify(open)};
    console.log(await openNbd(${JSON.stringify(uri)}).then(() => 'accepted', (error) => error.code + ': ' + error.message));
    process.exit();`;
  const { NODE_EXTRA_CA_CERTS: _, ...others } = process.env;
  const env = { ...others, [variable]: join(directory, 'ca-cert.pem') };
  return new Promise((resolve, reject) => {
    execFile(process.execPath, ['--input-type=module', '-e', program], { env }, (error, said) =>
      error === null ? resolve(said.trim()) : reject(error),
    );
  });
}

t.test('a server that shows a certificate in place of the key is refused', { skip }, async (t) => {
  const directory = makeCertificates();
  const port = await freePort();
  const server = new NbdServer(
    'nbdkit',
    ['-f', '-i', '127.0.0.1', '-p', String(port), '--tls=require', `--tls-certificates=${directory}`, 'memory', '1M'],
    { port },
  );
  t.teardown(() => server.kill());
  await server.start();
  const uri = `nbds://localhost:${port}/`;
  t.equal(await inTrustingProcess(directory, uri), 'accepted', 'its authority is known');
  t.equal(
    await inTrustingProcess(directory, uri, 'FUSETAP_EXTRA_CA_CERTS'),
    'accepted',
    'as a server on Node 20 knows it',
  );
  t.match(await inTrustingProcess(directory, uri, 'NOBODY_KNOWS_THIS'), /^DENIED/, 'else it is not trusted');
  const withKey = await inTrustingProcess(directory, `${uri}?tls-psk-file=${join(directory, 'keys.psk')}`);
  t.match(withKey, /^DENIED: .*(certificate, not the key)/);
});

t.test('a server that does not encrypt is refused', { skip }, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tls-'));
  const socket = join(directory, 's');
  const server = nbdkit(socket, ['--tls=off', 'memory', '1M']);
  t.teardown(() => server.kill());
  await server.start();
  const uri = uriOf(socket).replace('nbd+', 'nbds+');
  await t.rejects(openNbd(uri), { code: 'DENIED', message: /does not encrypt/ });
});
