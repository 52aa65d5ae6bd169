/** `fusetap umount`: undoes `fusetap mount`. */
import type { Command } from 'commander';
import { unmountImage } from '../../mount/file-system/index.js';
import { detachEach } from '../detach-each.js';
import { pathOfTag } from '../locate-vbd.js';
import { callersRuntimeDir, endHelp, type SharedOptions } from '../options.js';
import { printNote, tellWaits } from '../output.js';

/** A user expects that another mount keeps a vbd attached, but not that a program does. */
function sayKept({ verbose }: SharedOptions): (text: string, isByProgram: boolean) => void {
  return (text, isByProgram) => {
    if (verbose || isByProgram) printNote(text);
  };
}

export function register(program: Command): void {
  const command = program
    .command('umount')
    .summary('unmount an image, and detach it')
    .description(
      'Unmounts the file systems of a vbd, and detaches the vbd, also if it was attached with fusetap attach. If the ' +
        'bus was started for this vbd, it ends. Returns when the data is durable. A file system in use is not ' +
        'unmounted: exit 4. If others use the vbd, for example another mounted partition of it, it stays attached.',
    )
    .argument('<PLACE...>', 'a directory, an image, the path of a vbd or partition, a loop device, or LABEL=, UUID= …')
    .action(async (places: string[], _: unknown, self: Command) => {
      const options = self.optsWithGlobals<SharedOptions>();
      const telling = { ...tellWaits(options), ...(!options.quiet && { keeps: sayKept(options) }) };
      await detachEach(places, options, async (place) =>
        unmountImage(await pathOfTag(place, options), callersRuntimeDir(), telling),
      );
    });
  endHelp(command, ['fusetap umount /mnt', 'fusetap umount disk.img']);
}
