/** `fusetap log`: prints the log of the bus. */
import type { Command } from 'commander';
import { escapeControls } from '../../drivers/quote.js';
import { followLog, type LogLine, readLog } from '../../mount/client/log.js';
import { chosenBus, endHelp, type SharedOptions } from '../options.js';
import { print } from '../output.js';

interface LogOptions extends SharedOptions {
  follow?: boolean;
}

export function register(program: Command): void {
  const command = program
    .command('log')
    .summary('print the log of the bus')
    .description('Prints the log of the bus, also of a dead bus. With --json, one JSON document per line.')
    .option('-f, --follow', 'print new lines too, until the bus ends')
    .action(async (_: unknown, self: Command) => {
      const options = self.optsWithGlobals<LogOptions>();
      const place = await chosenBus(options);
      const printLine = options.json ? printRecord : printText;
      if (!options.follow) return readLog(place).forEach(printLine);
      const readerLeft = new AbortController();
      process.stdout.on('error', () => readerLeft.abort());
      for await (const line of followLog(place, readerLeft.signal)) printLine(line);
    });
  endHelp(command, ['fusetap log', 'fusetap log -f', 'fusetap log --json | jq -c \'select(.event == "server-died")\'']);
}

function printText({ text }: LogLine): void {
  print(escapeControls(text));
}

function printRecord({ record }: LogLine): void {
  print(JSON.stringify(record));
}
