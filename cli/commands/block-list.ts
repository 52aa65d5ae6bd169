/** `fusetap block-list`: xm's word for what is attached to one bus. */
import type { Command } from 'commander';
import { escapeControls } from '../../drivers/quote.js';
import { showBus } from '../../mount/client/index.js';
import type { VbdInfo } from '../../mount/control/interface.js';
import { chosenBus, endHelp, type SharedOptions, withBus } from '../options.js';
import { print, printJson } from '../output.js';

export function register(program: Command): void {
  const command = program
    .command('block-list')
    .summary("xm's word for ls")
    .description(
      'Lists the vbds of a bus in the columns of xm. There is no backend domain, event channel or ring here: BE ' +
        'and handle are 0, evt-ch and ring-ref are -1. state is 4 (connected) if somebody has the vbd open, else ' +
        '1. BE-path is the path of the file.',
    )
    .argument('<BUS>', 'the name of the bus, for example the name of a domain')
    .action(async (bus: string, _: unknown, self: Command) => {
      const options = withBus(bus, self.optsWithGlobals<SharedOptions>());
      const { vbds } = await showBus(await chosenBus(options));
      const sorted = [...vbds].sort((a, b) => a.slot - b.slot);
      if (options.json) return printJson(sorted);
      if (sorted.length > 0) print('Vdev  BE handle state evt-ch ring-ref BE-path');
      for (const vbd of sorted) print(row(vbd));
    });
  endHelp(command, ['fusetap block-list 7']);
}

/** the numbers of xen/include/public/io/xenbus.h */
const CONNECTED = 4;
const INITIALISING = 1;

function row({ slot, opens, path }: VbdInfo): string {
  const cells: [value: number, width: number][] = [
    ...([
      [slot, 7],
      [0, 5],
      [0, 6],
    ] as [number, number][]),
    ...([
      [opens > 0 ? CONNECTED : INITIALISING, 7],
      [-1, 7],
      [-1, 6],
    ] as [number, number][]),
  ];
  return `${cells.map(([value, width]) => String(value).padEnd(width)).join('')}${escapeControls(path)}`;
}
