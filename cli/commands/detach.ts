/** `fusetap detach`: detaches vbds. */
import type { Command } from 'commander';
import { FusetapError } from '../../drivers/errors.js';
import { type BusPlace, detach, findVbd, isPath, listBuses, resolveBus, showBus } from '../../mount/client/index.js';
import type { BusInfo, VbdInfo } from '../../mount/control/interface.js';
import { detachEach } from '../detach-each.js';
import { callersRuntimeDir, chosenBus, endHelp, parseSeconds, type SharedOptions } from '../options.js';

interface DetachOptions extends SharedOptions {
  all?: boolean;
  wait?: number;
  force?: boolean;
}

/** a vbd and the bus that it is on */
interface Located {
  place: BusPlace;
  vdev: string;
}

export function register(program: Command): void {
  const command = program
    .command('detach')
    .summary('detach vbds')
    .description(
      'Detaches each VBD: a vdev, a slot number, the path of the file, or the path of its image if only one vbd ' +
        'has it. Returns when the data is durable and the file is gone. A vbd in use is not detached: exit 4, and ' +
        'the message lists who uses it. With --force, the data of file systems on the vbd is written back first: ' +
        'exit 1 if that fails.',
    )
    .argument('[VBD...]')
    .option('--all', 'all vbds of the bus')
    .option('--wait <SECONDS>', 'wait up to SECONDS until nobody uses it', parseSeconds)
    .option('--force', 'detach it even if it is in use: later I/O of its users is EIO, no acknowledged write is lost')
    .action(async (words: string[], _: unknown, self: Command) => run(words, self.optsWithGlobals<DetachOptions>()));
  endHelp(command, ['fusetap detach xvda', 'fusetap detach /srv/img/disk.img', 'fusetap detach --all --wait 10']);
}

async function run(words: readonly string[], options: DetachOptions): Promise<void> {
  checkWords(words, options);
  const place = await chosenBus(options);
  const ask = { force: options.force ?? false, waitSeconds: options.wait };
  if (options.all) {
    const { vbds } = await showBus(place);
    await detachEach(vbds, options, ({ vdev }) => detach(place, vdev, ask));
    return;
  }
  const locate = locator(place, options);
  await detachEach(words, options, async (word) => {
    const found = await locate(word);
    return detach(found.place, found.vdev, ask);
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

/**
 * Finds vbds on the chosen bus; finds a path on all other buses too, unless a bus was named. Reads the lists only once,
 * before the first detach: a bus may end with its last vbd.
 */
function locator(place: BusPlace, options: SharedOptions): (word: string) => Promise<Located> {
  const own = memoize(() => showBus(place));
  const all = memoize(async () => (await listBuses(place.runtimeDir)).buses);
  return async (word) => {
    try {
      return { place, vdev: findVbd(word, (await own()).vbds, `bus ${place.name}`).vdev };
    } catch (error) {
      const elsewhere = isPath(word) && options.bus === undefined;
      if (!elsewhere || !(error instanceof FusetapError && error.code === 'NOT_FOUND')) throw error;
    }
    const vbd: VbdInfo = findVbd(
      word,
      (await all()).flatMap((bus: BusInfo) => bus.vbds),
      'any bus',
    );
    return { place: await resolveBus(vbd.bus, callersRuntimeDir()), vdev: vbd.vdev };
  };
}

function memoize<Value>(make: () => Promise<Value>): () => Promise<Value> {
  let value: Promise<Value> | undefined;
  return () => {
    value ??= make();
    return value;
  };
}
