/** `fusetap commit`: moves what an overlay has into its base. */
import type { Command } from 'commander';
import { defined } from '../../drivers/defined.js';
import { locateVbd } from '../locate-vbd.js';
import { endHelp, type SharedOptions, VBD_HELP } from '../options.js';
import { print, printJson, printNote } from '../output.js';
import { withProgress } from '../progress-bar.js';
import { untilSignal } from '../run/until-signal.js';

export function register(program: Command): void {
  const command = program
    .command('commit')
    .summary('move what an overlay has into its base')
    .description(
      'Moves what a VBD has over its base into the base: the backing file of a qcow2 image. Programs that have the vbd open ' +
        'go on, and what they write meanwhile may stay in the overlay. All that the vbd had when the command began is in ' +
        'the base then, durable, and the overlay has its space back. Nobody else may use the base. Ctrl-C stops it, and ' +
        'returns when it has stopped: the rest stays in the overlay. Prints the path of the base.',
    )
    .argument('<VBD>', VBD_HELP)
    .action(async (word: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<SharedOptions>();
      const { place, vbd } = await locateVbd(word, options);
      const { commit } = await import('../../mount/client/ranges/changes.js');
      const committed = await untilSignal((signal) =>
        withProgress('committing', options, (progress) =>
          commit(place, vbd.vdev, { signal, ...defined({ progress }) }),
        ),
      );
      if (committed === null) return;
      const { notes = [], ...result } = committed;
      if (!options.quiet) notes.forEach(printNote);
      if (options.json) printJson(result);
      else print(result.base ?? vbd.path);
    });
  endHelp(command, ['fusetap commit xvda', 'fusetap commit overlay.qcow2']);
}
