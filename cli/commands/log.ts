/** `fusetap log`: prints the log of the bus. */
import type { Command } from 'commander';
import { FusetapError } from '../../drivers/errors.js';
import { escapeControls } from '../../drivers/quote.js';
import type { BusPlace } from '../../mount/client/index.js';
import { followLogs, type LineOfBus, readLogs } from '../../mount/log/all-logs.js';
import { followLog, type LogLine, readLog } from '../../mount/log/read-log.js';
import { callersRuntimeDir, chosenBus, endHelp, type SharedOptions } from '../options.js';
import { print, printNote, readerLeft } from '../output.js';

interface LogOptions extends SharedOptions {
  all?: boolean;
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
    .option('--all', 'of all buses of the runtime directory, also those that have ended; with -f also those that begin')
    .action(async (_: unknown, self: Command) => {
      const options = self.optsWithGlobals<LogOptions>();
      if (options.all) return await printAll(options);
      const place = await chosenBus(options);
      const printLine = options.json ? printRecord : printText;
      if (options.follow) return await follow(place, printLine);
      const { lines, isLastRun } = readLog(place);
      if (isLastRun && !options.quiet) printNote(`bus ${place.name} has ended: this is the log of its last run`);
      lines.forEach(printLine);
    });
  endHelp(command, [
    'fusetap log',
    'fusetap log -f',
    'fusetap log --json | jq -c \'select(.event == "server-died")\'',
    'fusetap log --all -f --json | jq -c \'select(.event == "ended")\'',
  ]);
}

/** Prints the logs of all buses, each line with its bus, in the order of their times. */
async function printAll({ bus, follow, json }: LogOptions): Promise<void> {
  if (bus !== undefined) {
    throw new FusetapError('USAGE', '--all is for all buses, and --bus for one', { hint: 'give one of them' });
  }
  const printLine = ({ bus, text, record }: LineOfBus): void =>
    print(json ? JSON.stringify({ bus, ...record }) : escapeControls(`${bus}: ${text}`));
  const directory = callersRuntimeDir();
  if (!follow) return readLogs(directory).forEach(printLine);
  for await (const line of followLogs(directory, readerLeft())) printLine(line);
}

/** @throws FusetapError FAILED if the bus died, or if not all of its data is durable */
async function follow(place: BusPlace, printLine: (line: LogLine) => void): Promise<void> {
  const lines = followLog(place, readerLeft());
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
