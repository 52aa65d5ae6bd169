/** `fusetap reset`: copies the image of a ram vbd again. */

import type { Command } from 'commander';
import { defined } from '../../drivers/defined.js';
import { reset } from '../../mount/client/index.js';
import { locateVbd } from '../locate-vbd.js';
import { endHelp, type SharedOptions, VBD_HELP } from '../options.js';
import { print, printJson } from '../output.js';
import { withProgress } from '../progress-bar.js';

export function register(program: Command): void {
  const command = program
    .command('reset')
    .summary('copy the image of a ram vbd again')
    .description(
      'Copies the image of a ram VBD again. What was written to the vbd is lost. A vbd in use is not reset: ' +
        'exit 4, and the message lists who uses it. The old copy stays until the new one is complete. Prints the ' +
        'path of the file.',
    )
    .argument('<VBD>', VBD_HELP)
    .action(async (word: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<SharedOptions>();
      const { place, vbd: located } = await locateVbd(word, options);
      const vbd = await withProgress('copying', options, (progress) =>
        reset(place, located.vdev, defined({ progress })),
      );
      if (options.json) printJson(vbd);
      else print(vbd.path);
    });
  endHelp(command, ['fusetap reset xvda']);
}
