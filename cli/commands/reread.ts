/** `fusetap reread`: reads the partition table of a vbd again. */

import type { Command } from 'commander';
import { locateVbd } from '../locate-vbd.js';
import { endHelp, type SharedOptions } from '../options.js';
import { print, printJson, printNote } from '../output.js';

export function register(program: Command): void {
  const command = program
    .command('reread')
    .summary('read the partition table of a vbd again')
    .description(
      'Reads the partition table of a VBD again, and attaches the partitions that it has now, also if the VBD was ' +
        'attached without --partitions. A partition with the same range stays the same file. If a partition in use ' +
        'has changed or is gone, nothing is changed: exit 4. Prints the paths of the partitions.',
    )
    .argument('<VBD>')
    .action(async (word: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<SharedOptions>();
      const { place, vbd: located } = await locateVbd(word, options);
      const { reread } = await import('../../mount/client/follow.js');
      const { notes = [], ...vbd } = await reread(place, located.vdev);
      if (!options.quiet) notes.forEach(printNote);
      if (options.json) printJson(vbd);
      else for (const { path } of vbd.partitions ?? []) print(path);
    });
  endHelp(command, ['fusetap reread xvda']);
}
