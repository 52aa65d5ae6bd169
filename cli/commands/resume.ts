/** `fusetap resume`: resumes the I/O of a paused vbd. */
import type { Command } from 'commander';
import { resume } from '../../mount/client/index.js';
import { locateVbd } from '../locate-vbd.js';
import { endHelp, type SharedOptions, VBD_HELP } from '../options.js';
import { printJson } from '../output.js';

export function register(program: Command): void {
  const command = program
    .command('resume')
    .summary('resume the I/O of a paused vbd')
    .description('Resumes the I/O of a paused vbd. Requests are served in the order in which they came.')
    .argument('<VBD>', VBD_HELP)
    .action(async (word: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<SharedOptions>();
      const { place, vbd } = await locateVbd(word, options);
      const resumed = await resume(place, vbd.vdev);
      if (options.json) printJson(resumed);
    });
  endHelp(command, ['fusetap resume xvda']);
}
