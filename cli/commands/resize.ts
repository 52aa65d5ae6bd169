/** `fusetap resize`: gives a vbd the size of its image. */

import type { Command } from 'commander';
import { locateVbd } from '../locate-vbd.js';
import { endHelp, type SharedOptions } from '../options.js';
import { print, printJson } from '../output.js';

export function register(program: Command): void {
  const command = program
    .command('resize')
    .summary('give a vbd the size of its image')
    .description(
      'Gives a VBD the size that its image has now, if the image has grown. Programs that have the vbd open go on. ' +
        'A vbd never becomes smaller, and a ram vbd keeps its size. Prints the size in bytes.',
    )
    .argument('<VBD>')
    .action(async (word: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<SharedOptions>();
      const { place, vbd: located } = await locateVbd(word, options);
      const { resize } = await import('../../mount/client/follow.js');
      const vbd = await resize(place, located.vdev);
      if (options.json) printJson(vbd);
      else print(String(vbd.size));
    });
  endHelp(command, ['truncate -s +1G disk.img; fusetap resize disk.img']);
}
