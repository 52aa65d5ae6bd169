/** `fusetap swap`: gives a vbd another image while programs have it open. */

import type { Command } from 'commander';
import { defined } from '../../drivers/defined.js';
import type { SwapRequest } from '../../mount/control/interface.js';
import { attachOption } from '../attach-options.js';
import { type AttachWords, placelessDisk } from '../attach-request.js';
import { locateVbd } from '../locate-vbd.js';
import { endHelp, type SharedOptions, VBD_HELP } from '../options.js';
import { print, printJson, printNote } from '../output.js';
import { withProgress } from '../progress-bar.js';

type SwapOptions = SharedOptions & Pick<AttachWords, 'driver' | 'image' | 'option' | 'share' | 'raw' | 'backing'>;

export function register(program: Command): void {
  const command = program
    .command('swap')
    .summary('put another image under a vbd')
    .description(
      'Puts another image of the same size under a VBD. Programs that have the vbd open go on with the new image; ' +
        'their requests wait meanwhile. The old image is flushed and closed. If anything fails, the vbd keeps its ' +
        'image. The mode and the filters stay. A vbd that was paused stays paused. Prints the path of the file.',
    )
    .argument('<VBD>', VBD_HELP)
    .argument('[SPEC]', 'DRIVER:PATH or PATH')
    .option('--driver <NAME>', 'the driver, instead of SPEC')
    .addOption(attachOption('image'))
    .addOption(attachOption('option'))
    .addOption(attachOption('share'))
    .addOption(attachOption('raw'))
    .addOption(attachOption('backing'))
    .action(async (word: string, spec: string | undefined, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<SwapOptions>();
      const request = swapRequest(spec, options);
      const { place, vbd: located } = await locateVbd(word, options);
      const { swap } = await import('../../mount/client/swap.js');
      const { notes = [], ...vbd } = await withProgress('copying', options, (progress) =>
        swap(place, located.vdev, request, defined({ progress })),
      );
      if (!options.quiet) notes.forEach(printNote);
      if (options.json) printJson(vbd);
      else print(vbd.path);
    });
  endHelp(command, ['fusetap swap xvda new.img', 'fusetap swap xvda ram:golden.img']);
}

/** @throws FusetapError USAGE, also if the SPEC has more than driver and image */
function swapRequest(spec: string | undefined, options: SwapOptions): SwapRequest {
  const why = { message: 'a vbd keeps its place', hint: 'give only DRIVER:PATH, or --driver and --image' };
  const { disk, notes } = placelessDisk(spec, defined(chosen(options)), why);
  if (options.verbose) notes.forEach(printNote);
  return { ...disk, pause: true };
}

/** The options that tell the disk: the others are not of `attach`. */
function chosen({ driver, image, option, share, raw, backing }: SwapOptions): {
  [Key in keyof AttachWords]: AttachWords[Key] | undefined;
} {
  return { driver, image, option, share, raw, backing };
}
