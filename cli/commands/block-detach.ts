/** `fusetap block-detach`: xm's word for detach. */
import type { Command } from 'commander';
import { detach } from '../../mount/client/index.js';
import { detachEach } from '../detach-each.js';
import { locateVbd } from '../locate-vbd.js';
import { endHelp, parseSeconds, type SharedOptions, withBus } from '../options.js';

interface BlockDetachOptions extends SharedOptions {
  wait?: number;
  force?: boolean;
}

export function register(program: Command): void {
  const command = program
    .command('block-detach')
    .summary("xm's word for detach")
    .description('Detaches a vbd. A vbd in use is not detached: exit 4, and the message lists who uses it.')
    .argument('<BUS>', 'the name of the bus, for example the name of a domain')
    .argument('<VDEV>', 'the vbd: xvda, hda, sda, or a slot number')
    .option('--wait <SECONDS>', 'wait up to SECONDS until nobody uses it', parseSeconds)
    .option(
      '-f, --force',
      'detach it even if it is in use: later I/O of its users is EIO, no acknowledged write is lost',
    )
    .action(async (bus: string, vdev: string, _: unknown, self: Command) => {
      const options = withBus(bus, self.optsWithGlobals<BlockDetachOptions>());
      await detachEach([vdev], options, async (word) => {
        const { place, vbd } = await locateVbd(word, options);
        return detach(place, vbd.vdev, { force: options.force ?? false, waitSeconds: options.wait });
      });
    });
  endHelp(command, ['fusetap block-detach 7 xvdb', 'fusetap block-detach 7 51728 --force']);
}
