/** `fusetap upgrade`: replaces the server of a running bus with the code that is installed now. */
import type { Command } from 'commander';
import { upgrade } from '../../mount/client/upgrade.js';
import { chosenBus, endHelp, type SharedOptions } from '../options.js';
import { print, printJson } from '../output.js';

export function register(program: Command): void {
  const command = program
    .command('upgrade')
    .summary('replace the server of the running bus')
    .description(
      'Replaces the server of the bus with a new one, which runs the code that is installed now. No I/O is lost: ' +
        'I/O waits for the time that is printed, in ms. The keeper still runs the code that it was started with.',
    )
    .action(async (_: unknown, self: Command) => {
      const options = self.optsWithGlobals<SharedOptions>();
      const result = await upgrade(await chosenBus(options));
      if (options.json) printJson(result);
      else print(`${result.pauseMs.toFixed(1)} ms`);
    });
  endHelp(command, ['fusetap upgrade', 'fusetap upgrade --bus build-7']);
}
