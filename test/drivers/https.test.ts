/** The driver https passes the suite over nginx, plain and encrypted, also with a cache that is smaller than the disk. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { RawDisk } from '../../drivers/driver.js';
import https from '../../drivers/https/index.js';
import { type DiskAbilities, type DiskFactory, diskSuite } from '../conformance/suite.js';
import { makeFile, writePieces } from './graph-factory.js';
import { WebServer, whyNoWeb } from './https/web-server.js';
import { makeCertificates } from './nbd/certificates.js';

t.setTimeout(300_000);

const able: DiskAbilities = { maxSizeBytes: 2 ** 40, holes: false, shrink: false, writes: false };

interface Kind {
  readonly name: string;
  readonly isEncrypted?: boolean;
  readonly cache?: string;
}

const KINDS: readonly Kind[] = [
  { name: 'nginx' },
  { name: 'nginx, a small cache', cache: '1M' },
  { name: 'nginx, encrypted', isEncrypted: true },
];

export function openWeb(options: Record<string, string>): Promise<RawDisk> {
  const none = { files: {}, disks: {}, memory: null, state: null, isRepaired: true };
  return https.open({ ...none, readOnly: true, options });
}

function factory({ isEncrypted = false, cache }: Kind): DiskFactory {
  const certificates = isEncrypted ? makeCertificates() : null;
  return async ({ size, pieces }) => {
    const directory = await mkdtemp(join(tmpdir(), 'web-'));
    const server = await WebServer.start(directory, { certificates });
    const path = await makeFile(join(directory, 'www/disk.img'), size);
    await writePieces([{ path, offset: 0, start: 0, size }], pieces);
    const ca = certificates === null ? {} : { 'ca-file': join(certificates, 'ca-cert.pem') };
    const reopen = () => openWeb({ uri: server.url('disk.img'), ...ca, ...(cache !== undefined && { cache }) });
    const dispose = async (): Promise<void> => {
      await server.end();
      await rm(directory, { recursive: true });
    };
    try {
      return { raw: await reopen(), reopen, dispose };
    } catch (error) {
      await dispose();
      throw error;
    }
  };
}

const why = whyNoWeb('openssl');
if (why === false) {
  for (const kind of KINDS) diskSuite({ name: kind.name, test: t, factory: factory(kind), abilities: able, runs: 4 });
} else t.test('nginx', { skip: why }, (t) => t.end());
