/** `fusetap detach`: detaches vbds. */
import type { Command } from 'commander';
import { FusetapError } from '../../drivers/errors.js';
import { detach, showBus } from '../../mount/client/index.js';
import { closeInherited } from '../../mount/client/inherited-files.js';
import { detachEach } from '../detach-each.js';
import { vbdFinder } from '../locate-vbd.js';
import { chosenBus, endHelp, parseSeconds, type SharedOptions, VBD_HELP } from '../options.js';

interface DetachOptions extends SharedOptions {
  all?: boolean;
  wait?: number;
  force?: boolean;
}

export function register(program: Command): void {
  const command = program
    .command('detach')
    .summary('detach vbds')
    .description(
      'Detaches each VBD. Returns when the data is durable and the file is gone. A vbd in use is not detached: exit 4, and ' +
        'the message lists who uses it. With --force, the data of file systems on the vbd is written back first: ' +
        'exit 1 if that fails.',
    )
    .argument('[VBD...]', VBD_HELP)
    .option('--all', 'all vbds of the bus')
    .option('--wait <SECONDS>', 'wait up to SECONDS until nobody uses it', parseSeconds)
    .option('--force', 'detach it even if it is in use: later I/O of its users is EIO, no acknowledged write is lost')
    .action(async (words: string[], _: unknown, self: Command) => run(words, self.optsWithGlobals<DetachOptions>()));
  endHelp(command, ['fusetap detach xvda', 'fusetap detach /srv/img/disk.img', 'fusetap detach --all --wait 10']);
}

async function run(words: readonly string[], options: DetachOptions): Promise<void> {
  checkWords(words, options);
  const ask = { force: options.force ?? false, waitSeconds: options.wait };
  if (options.all) {
    const place = await chosenBus(options);
    const { vbds } = await showBus(place);
    await closeInherited(place);
    await detachEach(vbds, options, ({ vdev }) => detach(place, vdev, ask));
    return;
  }
  const finder = await vbdFinder(options);
  await detachEach(words, options, async (word) => {
    const { place, vbd } = await finder.find(word);
    await closeInherited(place);
    return detach(place, vbd.vdev, ask);
  });
}

function checkWords(words: readonly string[], options: DetachOptions): void {
  if (options.all && words.length > 0) {
    throw new FusetapError('USAGE', `--all and ${words.join(' ')} contradict each other`, { hint: 'give one of them' });
  }
  if (!options.all && words.length === 0) {
    throw new FusetapError('USAGE', 'nothing to detach', { hint: 'give a VBD, or --all' });
  }
}
