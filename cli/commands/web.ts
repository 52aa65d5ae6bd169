/** `fusetap web`: a page that shows all buses live. */
import type { Command } from 'commander';
import { defined } from '../../drivers/defined.js';
import { callersRuntimeDir, endHelp, type SharedOptions } from '../options.js';
import { print, printJson, printNote } from '../output.js';
import { parseListen } from '../web/listen-address.js';

interface WebOptions extends SharedOptions {
  listen: string;
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
    .option('--listen <ADDRESS>', 'where to listen, as 127.0.0.1:8000 or a port', '127.0.0.1:0')
    .option('--allow-remote', 'allow an address that other machines can reach: what is sent is not encrypted')
    .action(async (_: unknown, self: Command) => await serve(self.optsWithGlobals<WebOptions>()));
  endHelp(command, [
    'fusetap web',
    'fusetap web --listen 8000',
    'ssh -L 8000:127.0.0.1:8000 HOST fusetap web --listen 8000',
  ]);
}

/** @throws FusetapError as parseListen and WebServer.listen */
async function serve({ listen, allowRemote = false, json, quiet }: WebOptions): Promise<void> {
  const address = parseListen(listen, allowRemote);
  const { WebServer } = await import('../web/server.js');
  const { untilEnded } = await import('../web/until-ended.js');
  const server = new WebServer(callersRuntimeDir(), address);
  const url = await server.listen(address);
  try {
    if (!address.isLoopback && !quiet) printNote('what this page sends can be read on the way: it is not encrypted');
    if (json) printJson(defined({ url }));
    else print(url);
    await untilEnded();
  } finally {
    await server.close();
  }
}
