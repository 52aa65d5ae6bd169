/** `fusetap umount`: undoes `fusetap mount`. */
import type { Command } from 'commander';
import { unmountImage } from '../../mount/client/mount.js';
import { depart } from '../departures.js';
import { callersRuntimeDir, endHelp, type SharedOptions } from '../options.js';

export function register(program: Command): void {
  const command = program
    .command('umount')
    .summary('unmount an image, and detach it')
    .description(
      'Unmounts what is mounted on DIR from a vbd, and detaches the vbd; a bus that was begun for it ends.\n' +
        'Returns when the data is durable. What is in use is not unmounted: exit 4.',
    )
    .argument('<DIR>', 'where it is mounted')
    .action(async (directory: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<SharedOptions>();
      await depart([directory], options, () => unmountImage(directory, callersRuntimeDir()));
    });
  endHelp(command, ['fusetap umount /mnt']);
}
