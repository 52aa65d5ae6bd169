/** `fusetap start`: starts a bus that stays without vbds. */

import type { Command } from 'commander';
import { defined } from '../../drivers/defined.js';
import { start } from '../../mount/client/index.js';
import type { BusWishes } from '../../mount/control/interface.js';
import { allowOtherOption, chosenBus, endHelp, type SharedOptions, transportOption } from '../options.js';
import { print, printJson, printNote } from '../output.js';

export function register(program: Command): void {
  const command = program
    .command('start')
    .summary('start a bus that stays without vbds')
    .description(
      'Starts a bus that stays without vbds, until fusetap stop. A bus that runs already stays from now on. ' +
        'Prints the directory of the bus.',
    )
    .addOption(transportOption())
    .addOption(allowOtherOption())
    .action(async (_: unknown, self: Command) => {
      const { transport, allowOther, ...options } = self.optsWithGlobals<SharedOptions & BusWishes>();
      const wishes = defined({ transport, allowOther });
      const bus = await start(await chosenBus(options), { ...wishes, ...(!options.quiet && { note: printNote }) });
      if (options.json) printJson(bus);
      else print(bus.path);
    });
  endHelp(command, [
    'fusetap start',
    'fusetap start --bus build-7',
    'mkdir -p /srv/disks && fusetap start --bus /srv/disks',
  ]);
}
