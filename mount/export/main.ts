/**
 * An exporter: a process of its own that offers a file of a bus to NBD clients. It is no part of the bus: if it dies, the bus
 * does not notice, and if the server of the bus dies, the exporter waits as all programs do.
 *
 *      fusetap export ──► { file, place, … } ──► this process ──► { listening } or { error } over the channel
 *                 └─ ends, or is killed: the channel is closed, and this process ends
 */
import { toFusetapError } from '../../drivers/errors.js';
import { exitAtOnce } from '../../system/libc.js';
import { LINGER_MS } from './connection.js';
import { ExportedFile, type FileToExport } from './exported-file.js';
import { type ExportPlace, ExportServer } from './server.js';
import { checkTlsFiles, readTlsFiles, type TlsFiles } from './tls.js';

export interface ExportRequest {
  readonly file: FileToExport;
  readonly place: ExportPlace;
  /** of the export */
  readonly name: string;
  readonly description: string;
  readonly tls: TlsFiles | null;
}

async function run({ file: wanted, place, name, description, tls }: ExportRequest): Promise<void> {
  // wrong files are told now, not to the first client
  if (tls !== null) await checkTlsFiles(tls);
  const file = ExportedFile.open(wanted);
  const server = new ExportServer(place, {
    ...{ file, name, description },
    tls: tls && (() => readTlsFiles(tls)),
  });
  const listening = await server.listen();
  process.send?.({ listening, sizeBytes: file.size });
  let isEnding = false;
  const end = (): void => {
    if (isEnding) exitAtOnce(0);
    isEnding = true;
    // a disk that hangs must not keep it: process.exit would wait for threads that wait for the disk
    setTimeout(() => exitAtOnce(0), 2 * LINGER_MS);
    void server
      .close()
      .then(() => file.close())
      .finally(() => exitAtOnce(0));
  };
  process.on('disconnect', end);
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, end);
}

process.title = 'fusetap-export';
process.once('message', (request: ExportRequest) => {
  run(request).catch((error: unknown) => {
    const told = toFusetapError(error, error instanceof Error ? error.message : String(error));
    process.send?.({ error: told.toJSON() }, () => process.exit(1));
  });
});
