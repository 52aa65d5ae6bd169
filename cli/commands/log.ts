/** `fusetap log`: prints the log of the bus. */
import type { Command } from 'commander';
import { FusetapError } from '../../drivers/errors.js';
import { escapeControls } from '../../drivers/quote.js';
import type { BusPlace } from '../../mount/client/index.js';
import { followLog, type LogLine, readLog } from '../../mount/client/log.js';
import { chosenBus, endHelp, type SharedOptions } from '../options.js';
import { print, printNote } from '../output.js';

interface LogOptions extends SharedOptions {
  follow?: boolean;
}

export function register(program: Command): void {
  const command = program
    .command('log')
    .summary('print the log of the bus')
    .description(
      'Prints the log of the bus, also of a dead bus, and of the last run of one that has ended. With --json, one JSON ' +
        'document per line.',
    )
    .option('-f, --follow', 'print new lines too, until the bus ends; exit 1 if the bus died')
    .action(async (_: unknown, self: Command) => {
      const options = self.optsWithGlobals<LogOptions>();
      const place = await chosenBus(options);
      const printLine = options.json ? printRecord : printText;
      if (options.follow) return await follow(place, printLine);
      const { lines, isLastRun } = readLog(place);
      if (isLastRun && !options.quiet) printNote(`bus ${place.name} has ended: this is the log of its last run`);
      lines.forEach(printLine);
    });
  endHelp(command, ['fusetap log', 'fusetap log -f', 'fusetap log --json | jq -c \'select(.event == "server-died")\'']);
}

/** @throws FusetapError FAILED if the bus died, or if not all of its data is durable */
async function follow(place: BusPlace, printLine: (line: LogLine) => void): Promise<void> {
  const readerLeft = new AbortController();
  process.stdout.on('error', () => readerLeft.abort());
  const lines = followLog(place, readerLeft.signal);
  let isDurable = true;
  let next = await lines.next();
  for (; !next.done; next = await lines.next()) {
    printLine(next.value);
    const { record } = next.value;
    isDurable = record.event !== 'ended' || record.durable;
  }
  if (next.value) {
    throw new FusetapError('FAILED', `bus ${place.name} has died: its processes are gone`, {
      hint: `fusetap stop --bus ${place.name} removes what it left`,
    });
  }
  if (!isDurable) throw new FusetapError('FAILED', `bus ${place.name} has ended, but not all of its data is durable`);
}

function printText({ text }: LogLine): void {
  print(escapeControls(text));
}

function printRecord({ record }: LogLine): void {
  print(JSON.stringify(record));
}
