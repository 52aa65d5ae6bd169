/** `fusetap pause`: pauses the I/O of a vbd. */
import type { Command } from 'commander';
import { pause } from '../../mount/client/index.js';
import { locateVbd } from '../locate-vbd.js';
import { endHelp, type SharedOptions, VBD_HELP } from '../options.js';
import { printJson } from '../output.js';

export function register(program: Command): void {
  const command = program
    .command('pause')
    .summary('pause the I/O of a vbd')
    .description(
      'Pauses the I/O of a vbd: requests wait, without an error, so that the image can be copied or swapped. A ' +
        'vbd that is passed through can be paused only while nobody has it open. To pause it at any time, attach ' +
        'it with --passthrough off.',
    )
    .argument('<VBD>', VBD_HELP)
    .action(async (word: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<SharedOptions>();
      const { place, vbd } = await locateVbd(word, options);
      const paused = await pause(place, vbd.vdev);
      if (options.json) printJson(paused);
    });
  endHelp(command, ['fusetap pause xvda && cp --sparse=always disk.img copy.img; fusetap resume xvda']);
}
