/** `fusetap stats`: shows requests, bytes, errors and latency by kind. */
import type { Command } from 'commander';
import { FusetapError } from '../../drivers/errors.js';
import { askStats, KINDS } from '../../mount/client/stats.js';
import type { VbdStats } from '../../mount/control/interface.js';
import { busAndVdev } from '../locate-vbd.js';
import { endHelp, type SharedOptions, VBD_HELP } from '../options.js';
import { type Column, humanSize, printJson, printNote, printTable } from '../output.js';
import { parseCount, parseInterval } from '../watching/options.js';

type KindStats = VbdStats['read'];

interface StatsOptions extends SharedOptions {
  interval?: number;
  count?: number;
}

const COLUMNS: readonly Column[] = [
  { head: 'BUS' },
  { head: 'VDEV' },
  { head: 'KIND' },
  { head: 'REQUESTS', align: 'right' },
  { head: 'BYTES', align: 'right' },
  { head: 'ERRORS', align: 'right' },
  { head: 'P50-US', align: 'right' },
  { head: 'P99-US', align: 'right' },
  { head: 'MAX-US', align: 'right' },
];

export function register(program: Command): void {
  const command = program
    .command('stats')
    .summary('show requests, bytes, errors and latency by kind')
    .description(
      'Shows the requests to a VBD, or to all vbds of the bus, since the attach: how many, bytes, errors, and ' +
        'how long the server worked on them, in microseconds. I/O that the kernel does without the server ' +
        '(passthrough) is not counted.',
    )
    .argument('[VBD]', VBD_HELP)
    .option(
      '--interval <SECONDS>',
      'print the rates of each interval, as iostat does, until it is ended',
      parseInterval,
    )
    .option('--count <N>', 'with --interval: end after N intervals', parseCount)
    .action(async (word: string | undefined, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<StatsOptions>();
      const { interval, count } = options;
      if (interval !== undefined) {
        const { printIntervals } = await import('../watching/print-intervals.js');
        return await printIntervals(word, { ...options, interval });
      }
      if (count !== undefined) {
        throw new FusetapError('USAGE', '--count is the number of intervals', { hint: 'add --interval SECONDS' });
      }
      const stats = await find(word, options);
      if (options.json) return printJson(stats);
      printTable(COLUMNS, stats.flatMap(rows));
      const passedThrough = stats.filter(({ passthrough }) => passthrough).map(({ vdev }) => vdev);
      if (passedThrough.length > 0 && !options.quiet) {
        printNote(`passed through by the kernel, so not counted: ${passedThrough.join(' ')}`);
      }
    });
  endHelp(command, [
    'fusetap stats',
    'fusetap stats xvda',
    "fusetap stats --json | jq '.[].read.latencyUs.p99'",
    'fusetap stats --interval 5',
    "fusetap stats xvda --interval 1 --count 10 --json | jq '.vbds[].read.perSecond'",
  ]);
}

async function find(word: string | undefined, options: SharedOptions): Promise<VbdStats[]> {
  const { place, vdev } = await busAndVdev(word, options);
  return (await askStats(place)).filter((each) => vdev === undefined || each.vdev === vdev);
}

function rows(vbd: VbdStats): string[][] {
  return KINDS.map((kind) => [vbd.bus, vbd.vdev, kind, ...cells(vbd[kind])]);
}

function cells({ requests, bytes, errors, latencyUs }: KindStats): string[] {
  const us = [latencyUs.p50, latencyUs.p99, latencyUs.max].map((value) => (value === null ? '-' : value.toFixed(1)));
  return [String(requests), humanSize(bytes), String(errors), ...us];
}
