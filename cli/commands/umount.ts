/** `fusetap umount`: undoes `fusetap mount`. */
import type { Command } from 'commander';
import { unmountImage } from '../../mount/file-system/index.js';
import { depart } from '../detach-each.js';
import { callersRuntimeDir, endHelp, type SharedOptions } from '../options.js';
import { printNote, tellWaits } from '../output.js';

/** That other mounts keep a vbd is what their user expects; that a program does, is not. */
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
      'Unmounts DIR, if a vbd is mounted there, and detaches the vbd. If the bus was started for this vbd, it ' +
        'ends. Returns when the data is durable. A file system in use is not unmounted: exit 4. If others use the ' +
        'vbd, for example another mounted partition of it, it stays attached.',
    )
    .argument('<DIR>', 'the directory where it is mounted')
    .action(async (directory: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<SharedOptions>();
      const telling = { ...tellWaits(options), ...(!options.quiet && { keeps: sayKept(options) }) };
      await depart([directory], options, () => unmountImage(directory, callersRuntimeDir(), telling));
    });
  endHelp(command, ['fusetap umount /mnt']);
}
