/** `fusetap web`: a page that shows all buses live. */
import type { Command } from 'commander';
import { watchReader } from '../../mount/client/watching/reader-left.js';
import { callersRuntimeDir, endHelp, type SharedOptions } from '../options.js';
import { print, printJson, printNote } from '../output.js';
import { catchSignals } from '../run/signals.js';
import { type ListenPlace, parseListenPlace } from '../watching/options.js';
import { checkListen } from '../web/listen-address.js';

/** a free port of this machine */
const ANYWHERE: ListenPlace = { host: '127.0.0.1', port: 0 };

interface WebOptions extends SharedOptions {
  listen?: ListenPlace;
  allowRemote?: boolean;
}

export function register(program: Command): void {
  const command = program
    .command('web')
    .summary('show all buses on a page')
    .description(
      'Serves a page that shows all buses live: the rates of each vbd, latencies, queues, the servers and their ' +
        'restarts, the events, and of a chosen vbd its map and its tree. Prints the URL of the page, which has a secret ' +
        'in it: who knows the URL can see all this. The page only reads: nothing can be changed with it. Ends with ' +
        'Ctrl-C, and when the reader of its output leaves.',
    )
    .option(
      '--listen <ADDRESS:PORT>',
      'listen there; a PORT alone is on 127.0.0.1; default: a free one',
      parseListenPlace,
    )
    .option('--allow-remote', 'allow an address that other machines can reach: what is sent is not encrypted')
    .action(async (_: unknown, self: Command) => await serve(self.optsWithGlobals<WebOptions>()));
  endHelp(command, [
    'fusetap web',
    'fusetap web --listen 8000',
    'ssh -L 8000:127.0.0.1:8000 HOST fusetap web --listen 8000',
  ]);
}

/** @throws FusetapError as checkListen and WebServer.listen */
async function serve({ listen = ANYWHERE, allowRemote = false, json, quiet }: WebOptions): Promise<void> {
  const address = checkListen(listen, allowRemote);
  const { WebServer } = await import('../web/server.js');
  const signals = catchSignals();
  const server = new WebServer(callersRuntimeDir(), address);
  try {
    const url = await server.listen(address);
    if (!address.isLoopback && !quiet) printNote('what this page sends can be read on the way: it is not encrypted');
    if (json) printJson({ url });
    else print(url);
    await untilLeft(signals.aborted);
  } finally {
    signals.release();
    await server.close();
  }
}

/** Resolves with the first signal, or when the reader of stdout has left: to be ended is how this command ends. */
async function untilLeft(signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const unwatch = watchReader(resolve);
    const end = (): void => {
      unwatch();
      resolve();
    };
    if (signal.aborted) end();
    else signal.addEventListener('abort', end);
  });
}
