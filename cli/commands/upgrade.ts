/** `fusetap upgrade`: replaces the server of a running bus with the code of this installation. */
import type { Command } from 'commander';
import { upgrade } from '../../mount/client/upgrade.js';
import type { UpgradeResult } from '../../mount/control/interface.js';
import { chosenBus, endHelp, type SharedOptions } from '../options.js';
import { print, printJson, printNote } from '../output.js';

export function register(program: Command): void {
  const command = program
    .command('upgrade')
    .summary('replace the server of the running bus')
    .description(
      'Replaces the server of the bus with a new one, which runs the code of the installation that this command ' +
        'belongs to. No I/O is lost: I/O waits for the time that is printed, in ms. The keeper still runs the code ' +
        'that it was started with.',
    )
    .action(async (_: unknown, self: Command) => {
      const options = self.optsWithGlobals<SharedOptions>();
      const result = await upgrade(await chosenBus(options));
      const { bus } = result;
      if (options.json) printJson({ ...result, name: bus.bus, version: bus.version ?? null });
      else print(describe(result));
      if (result.program === undefined && !options.quiet) {
        printNote(
          `the keeper of bus ${bus.bus} is of an older fusetap: its server runs the code of the keeper's own ` +
            'installation, which may be another one than this; to change that, stop the bus and start it again',
        );
      }
    });
  endHelp(command, ['fusetap upgrade', 'fusetap upgrade --bus build-7']);
}

function describe({ pauseMs, bus: { version } }: UpgradeResult): string {
  const pause = `${pauseMs.toFixed(1)} ms pause`;
  return version === undefined ? pause : `${pause}; server ${version.server ?? '-'}, keeper ${version.keeper ?? '-'}`;
}
