/** `fusetap export`: offers a vbd to NBD clients. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { FusetapError } from '../../drivers/errors.js';
import { printNbdUri } from '../../drivers/nbd/uri.js';
import type { LocatedVbd } from '../../mount/client/finding/locate-vbd.js';
import { watchReader } from '../../mount/client/watching/reader-left.js';
import type { ExportRequest } from '../../mount/export/main.js';
import type { ExportPlace } from '../../mount/export/server.js';
import type { Exporter } from '../../mount/export/start.js';
import { vbdFinder } from '../locate-vbd.js';
import { endHelp, type SharedOptions } from '../options.js';
import { print, printJson, printNote } from '../output.js';
import { catchSignals } from '../run/signals.js';
import { type ListenPlace, parseListenPlace } from '../watching/options.js';
import { isLoopbackAddress } from '../watching/own-host.js';
import { checkListen } from '../web/listen-address.js';

interface ExportOptions extends SharedOptions {
  socket?: string;
  listen?: ListenPlace;
  name?: string;
  readOnly?: boolean;
  tls?: string;
  tlsPsk?: string;
  tlsVerifyPeer?: boolean;
  allowRemote?: boolean;
}

const MOST_NAME_BYTES = 4096;
const ENDING = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;

export function register(program: Command): void {
  const command = program
    .command('export')
    .summary('offer a vbd to NBD clients')
    .description(
      'Offers a vbd or partition to NBD clients (QEMU, nbd-client, libnbd, another fusetap) until it is ended, and prints ' +
        'the URI that they use. The clients see no death of the server of the bus: their requests wait meanwhile. ' +
        'Without --socket and --listen it is a socket beside the bus, for programs of the same user.',
    )
    .argument('<VBD>', 'as of fusetap show; a partition too')
    .option('--socket <PATH>', 'listen on this unix socket')
    .option(
      '--listen <ADDRESS:PORT>',
      'listen there; a PORT alone is on 127.0.0.1; port 0 is a free one',
      parseListenPlace,
    )
    .option('--name <NAME>', 'the name of the export; default: its vdev. Clients that give no name get it too')
    .option('--read-only', 'refuse writes; also the default for mode r')
    .option('--tls <DIR>', 'encrypt, with server-cert.pem and server-key.pem there')
    .option('--tls-verify-peer', 'only clients with a certificate of the authority in ca-cert.pem there')
    .option('--tls-psk <FILE>', 'encrypt, for clients with a key in that file (USER:KEY, as psktool writes)')
    .option('--allow-remote', 'allow, without encryption, an address that other machines can reach')
    .action(async (word: string, _: unknown, self: Command) => {
      await serve(word, self.optsWithGlobals<ExportOptions>());
    });
  endHelp(command, [
    'fusetap export xvda',
    'fusetap export xvda --socket /run/xvda.sock',
    'fusetap export xvda --listen 10809',
    'fusetap export xvda --listen 0.0.0.0:10809 --tls /etc/pki/nbd --tls-verify-peer',
  ]);
}

async function serve(word: string, options: ExportOptions): Promise<void> {
  checkOptions(options);
  const located = await (await vbdFinder(options)).findAny(word);
  const { startExporter } = await import('../../mount/export/start.js');
  const signals = catchSignals();
  try {
    const request = requestFor(located, options);
    const exporter = await startExporter(request, signals.aborted);
    tell(exporter.place, request, options);
    await untilEnded(exporter, signals.aborted);
  } catch (error) {
    // a signal is how this command ends
    if (!signals.aborted.aborted || error !== signals.aborted.reason) throw error;
  } finally {
    signals.release();
  }
}

/** @throws FusetapError USAGE, DENIED */
function checkOptions({ socket, listen, name, tls, tlsPsk, tlsVerifyPeer, allowRemote }: ExportOptions): void {
  if (socket !== undefined && listen !== undefined)
    throw contradiction('--socket', '--listen', 'start one export for each');
  if (tls !== undefined && tlsPsk !== undefined)
    throw contradiction('--tls', '--tls-psk', 'certificates or keys, not both');
  if (tlsVerifyPeer && tls === undefined) {
    throw new FusetapError('USAGE', '--tls-verify-peer is about certificates', { hint: 'give --tls DIR' });
  }
  if (name !== undefined && Buffer.byteLength(name) > MOST_NAME_BYTES) {
    throw new FusetapError('USAGE', `--name: a name has at most ${MOST_NAME_BYTES} bytes`, {
      hint: 'give a shorter one',
    });
  }
  const isEncrypted = tls !== undefined || tlsPsk !== undefined;
  if (listen !== undefined) checkListen(listen, allowRemote === true || isEncrypted, DISK);
}

const DISK = { what: 'the disk', hint: 'encrypt with --tls or --tls-psk, or add --allow-remote' };

function contradiction(one: string, other: string, hint: string): FusetapError {
  return new FusetapError('USAGE', `${one} and ${other} cannot be used together`, { hint });
}

function requestFor({ place, vbd, partition }: LocatedVbd, options: ExportOptions): ExportRequest {
  const { socket, listen, name, readOnly } = options;
  const { vdev, path } = partition ?? vbd;
  const at: ExportPlace =
    listen === undefined
      ? { socket: socket === undefined ? `${place.stateDir}/nbd-${vdev}.sock` : resolve(socket) }
      : checkListen(listen, true);
  return {
    file: {
      path,
      readOnly: readOnly === true || (partition?.mode ?? vbd.mode) === 'r',
      // the kernel passes no requests for partitions through
      isMemory: partition === null && vbd.passthrough && vbd.driver === 'ram',
      isQueued: partition !== null || !vbd.passthrough,
    },
    place: at,
    name: name ?? vdev,
    description: `${vdev} of bus ${place.name}`,
    tls: tlsOf(options),
  };
}

/** How the connections are encrypted; null: they are not. */
function tlsOf({ tls, tlsPsk, tlsVerifyPeer = false }: ExportOptions): ExportRequest['tls'] {
  if (tls === undefined && tlsPsk === undefined) return null;
  const absolute = (path: string | undefined): string | null => (path === undefined ? null : resolve(path));
  return { certificates: absolute(tls), verifiesPeer: tlsVerifyPeer, pskFile: absolute(tlsPsk) };
}

function tell(place: ExportPlace, { tls, name, file }: ExportRequest, { json, quiet }: ExportOptions): void {
  const isLocal = 'socket' in place;
  const uri = printNbdUri({
    host: isLocal ? null : place.host,
    port: isLocal ? 0 : place.port,
    socket: isLocal ? place.socket : null,
    exportName: '',
    tls: tls && { user: null, certificates: null, pskFile: null, hostname: null, verifiesPeer: true },
  });
  if (!isLocal && tls === null && !quiet && !isLoopbackAddress(place.host)) {
    printNote('what this export sends and gets can be read and changed on the way: it is not encrypted');
  }
  if (json) printJson({ uri, name, readOnly: file.readOnly });
  else print(uri);
}

/** Resolves when the exporter has ended: asked by a signal, or because the reader of stdout has left. */
async function untilEnded(exporter: Exporter, asked: AbortSignal): Promise<void> {
  const end = (): void => exporter.end();
  const unwatch = watchReader(end);
  // the first signal may have come already; a second one ends it at once
  if (asked.aborted) end();
  for (const signal of ENDING) process.on(signal, end);
  try {
    if (await exporter.ended) return;
  } finally {
    unwatch();
    for (const signal of ENDING) process.off(signal, end);
  }
  throw new FusetapError('FAILED', 'the exporter was killed, or failed: see above', { hint: 'start it again' });
}
