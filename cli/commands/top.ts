/** `fusetap top`: shows what the vbds of all buses do, again and again. */
import { setTimeout as delay } from 'node:timers/promises';
import { type Command, Option } from 'commander';
import type { BusWatch } from '../../mount/client/watching/bus-watch.js';
import type { BusRates } from '../../mount/client/watching/rates.js';
import { endHelp, type SharedOptions } from '../options.js';
import { print, printJson, printNote, printTable } from '../output.js';
import { chosenWatch, notRunning, parseInterval } from '../watching/options.js';
import { BUS_COLUMNS, type RateColumn, sortVbds, VBD_COLUMNS } from '../watching/rows.js';

interface TopOptions extends SharedOptions {
  interval: number;
  once?: boolean;
  sort: string;
}

export function register(program: Command): void {
  const command = program
    .command('top')
    .summary('show what disks do, live')
    .description(
      'Shows the vbds of all buses, or of one, with requests and bytes per second, latencies and queue, and the servers of ' +
        'the buses with their processor time and memory. Figures are those of the last interval. With --once, with --json, ' +
        'and if stdout is not a terminal, they are printed once.',
    )
    .option('--interval <SECONDS>', 'how long an interval is', parseInterval, 1)
    .option('--once', 'wait one interval, print it, and end')
    .addOption(
      new Option('--sort <COLUMN>', 'the column to sort by: the busiest first')
        .choices(['requests', ...VBD_COLUMNS.map(({ key }) => key)])
        .default('requests'),
    )
    .action(async (_: unknown, self: Command) => {
      const options = self.optsWithGlobals<TopOptions>();
      const sort = options.sort === 'requests' ? '' : options.sort;
      const isLive = !options.once && !options.json && process.stdout.isTTY;
      if (!isLive) return await printOnce(options, sort);
      if (process.env.TERM === 'dumb') {
        printNote('this terminal (TERM=dumb) cannot draw a screen: this is one interval');
        return await printOnce(options, sort);
      }
      const { runTop } = await import('../top/run-top.js');
      await runTop(await chosenWatch(options, options.interval), options.interval * 1000, sort);
    });
  endHelp(
    command,
    [
      'fusetap top',
      'fusetap top --sort p99 --interval 5',
      "fusetap top --once --json | jq '.buses[].vbds[] | {vdev, read}'",
    ],
    {
      lists: [
        {
          title: 'Keys',
          rows: [
            ['left, right', 'sort by the column before or after; also < and >'],
            ['r', 'reverse the order'],
            ['p, space', 'pause the screen'],
            ['h, ?', 'help'],
            ['q, Ctrl-C', 'quit'],
          ],
        },
      ],
    },
  );
}

async function printOnce(options: TopOptions, sort: string): Promise<void> {
  const watch = await chosenWatch(options);
  const buses = await lookTwice(watch, options.interval * 1000).finally(() => watch.close());
  if (buses.length === 0 && options.bus !== undefined) throw notRunning(options.bus);
  if (options.json) return printJson({ buses });
  if (buses.length === 0) return printNote('no bus runs');
  printRates(BUS_COLUMNS, buses);
  for (const { trouble } of buses) if (trouble !== null) printNote(trouble);
  const vbds = sortVbds(
    buses.flatMap((bus: BusRates) => bus.vbds),
    sort,
    false,
  );
  if (vbds.length === 0) return;
  print('');
  printRates(VBD_COLUMNS, vbds);
}

async function lookTwice(watch: BusWatch, intervalMs: number): Promise<BusRates[]> {
  await watch.look();
  await delay(intervalMs);
  return await watch.look();
}

/** The same tables as on a terminal, but whole. */
function printRates<Row>(columns: readonly RateColumn<Row>[], rows: readonly Row[]): void {
  printTable(
    columns.map(({ head, isText }) => (isText ? { head } : { head, align: 'right' })),
    rows.map((row) => columns.map((column) => column.cell(row))),
  );
}
