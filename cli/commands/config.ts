/** `fusetap config`: prints the bus as disk lines of an xl domain configuration. */
import type { Command } from 'commander';
import { showBus } from '../../mount/client/index.js';
import type { VbdInfo } from '../../mount/control/interface.js';
import { withBus } from '../bus-word.js';
import { printXlSpec } from '../disk-spec/index.js';
import { chosenBus, endHelp, type SharedOptions } from '../options.js';
import { print, printError, printJson } from '../output.js';

export function register(program: Command): void {
  const command = program
    .command('config')
    .summary('print the bus as xl disk lines')
    .description('Prints each vbd of the bus as a disk line of xl. `attach` takes such a line as a SPEC.')
    .argument('[BUS]', 'the bus, instead of --bus')
    .action(async (word: string | undefined, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<SharedOptions>();
      const { vbds } = await showBus(await chosenBus(withBus(word, options)));
      printLines(vbds, options);
    });
  endHelp(command, [
    'fusetap config',
    'fusetap config | while read -r spec; do fusetap attach --bus copy "$spec"; done',
  ]);
}

/** A vbd that no line can describe must not hide the others. */
function printLines(vbds: readonly VbdInfo[], options: SharedOptions): void {
  const lines: string[] = [];
  for (const { driver, image, vdev, mode } of [...vbds].sort((a, b) => a.slot - b.slot)) {
    try {
      lines.push(printXlSpec({ driver, image, vdev, mode, notes: [] }));
    } catch (error) {
      process.exitCode = printError(error, options.debug);
    }
  }
  if (options.json) printJson(lines);
  else lines.forEach(print);
}
