/** The driver nbd passes the suite over real servers: with holes, without, and with blocks of 4096 bytes. */
import { execFileSync } from 'node:child_process';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { frontDisk } from '../../drivers/disk.js';
import type { RawDisk } from '../../drivers/driver.js';
import { narrow } from '../../drivers/filters/narrow.js';
import { ExportedFile } from '../../mount/export/exported-file.js';
import { ExportServer } from '../../mount/export/server.js';
import { pieceBytes } from '../conformance/pattern.js';
import { type DiskAbilities, type DiskFactory, type DiskRequest, diskSuite } from '../conformance/suite.js';
import { openNbd } from './nbd/open.js';
import { type NbdServer, nbdkit, qemuNbd, uriOf, whyNoServers } from './nbd/servers.js';

t.setTimeout(300_000);

const BLOCK = 4096;

interface Kind {
  readonly name: string;
  readonly abilities: DiskAbilities;
  /** its sizes are multiples of that; a disk is a part of the export then */
  readonly unit: number;
  readonly options?: Readonly<Record<string, string>>;
  make(image: string, socket: string, size: number): Pick<NbdServer, 'start' | 'kill'>;
}

const FILE = { maxSizeBytes: 2 ** 42, holes: true, shrink: false };
const KINDS: readonly Kind[] = [
  { name: 'nbdkit file', abilities: FILE, unit: 1, make: (image, socket) => nbdkit(socket, ['file', image]) },
  {
    ...{ name: 'nbdkit memory', abilities: { ...FILE, maxSizeBytes: 2 ** 40 }, unit: 1 },
    make: (_, socket, size) => nbdkit(socket, ['memory', String(size)]),
  },
  {
    ...{
      name: 'nbdkit file, blocks of 4096 bytes, durable',
      abilities: FILE,
      unit: BLOCK,
      options: { durable: 'yes' },
    },
    make: (image, socket) =>
      nbdkit(socket, [
        ...['--filter=blocksize-policy', 'file', image],
        ...['blocksize-minimum=4096', 'blocksize-maximum=64K', 'blocksize-error-policy=error'],
      ]),
  },
  {
    ...{ name: 'nbdkit file without structured replies', abilities: { ...FILE, holes: false }, unit: 1 },
    make: (image, socket) => nbdkit(socket, ['--no-sr', 'file', image]),
  },
  {
    ...{ name: 'nbdkit file without zeroes', abilities: { ...FILE, holes: false }, unit: 1 },
    make: (image, socket) => nbdkit(socket, ['--filter=nozero', 'file', image, 'zeromode=none']),
  },
  { name: 'fusetap export', abilities: FILE, unit: 1, make: exporter },
  {
    ...{ name: 'qemu-nbd raw', abilities: FILE, unit: BLOCK },
    make: (image, socket) => qemuNbd(socket, ['-f', 'raw', image]),
  },
  {
    ...{ name: 'qemu-nbd qcow2', abilities: FILE, unit: BLOCK },
    make: (image, socket) => qemuNbd(socket, ['-f', 'qcow2', `${image}.qcow2`]),
  },
];

/** Our own server, of a plain file. */
function exporter(image: string, socket: string): Pick<NbdServer, 'start' | 'kill'> {
  const file = ExportedFile.open({ path: image, readOnly: false, isMemory: false, isQueued: false });
  const server = new ExportServer({ socket }, { file, name: 'disk', description: '', tls: null });
  return {
    start: async () => {
      await server.listen();
    },
    kill: async () => {
      await server.close();
      await file.close();
    },
  };
}

function factory(kind: Kind): DiskFactory {
  return async (request) => {
    const directory = await mkdtemp(join(tmpdir(), 'nbd-'));
    const [image, socket] = [join(directory, 'disk.img'), join(directory, 's')];
    const size = Math.ceil(request.size / kind.unit) * kind.unit;
    const file = await open(image, 'wx');
    await file.truncate(size);
    await file.close();
    if (kind.name.endsWith('qcow2')) {
      execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', `${image}.qcow2`, String(size)]);
    }
    const server = kind.make(image, socket, size);
    await server.start();
    const { readOnly } = request;
    const uri = uriOf(socket);
    const reopen = async (): Promise<RawDisk> => {
      const raw = await openNbd(uri, { readOnly, options: kind.options ?? {} });
      return size === request.size ? raw : narrow(raw, 0, request.size);
    };
    await fill(uri, request);
    return {
      raw: await reopen(),
      reopen,
      dispose: async () => {
        await server.kill();
        await rm(directory, { recursive: true });
      },
    };
  };
}

async function fill(uri: string, { pieces }: DiskRequest): Promise<void> {
  if (pieces.length === 0) return;
  const disk = frontDisk(await openNbd(uri), { readOnly: false });
  for (const piece of pieces) await disk.write(pieceBytes(piece), piece.offset);
  await disk.close();
}

const skip = whyNoServers();
if (skip !== false) t.test('the suite over real servers', { skip }, async () => {});
else
  for (const kind of KINDS)
    diskSuite({ name: kind.name, test: t, factory: factory(kind), abilities: kind.abilities, runs: 3 });
