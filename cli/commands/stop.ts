/** `fusetap stop`: detaches all vbds and ends the bus. */
import type { Command } from 'commander';
import { FusetapError } from '../../drivers/errors.js';
import { type BusPlace, listBuses, resolveBus, stop } from '../../mount/client/index.js';
import { closeInherited } from '../../mount/client/inherited-files.js';
import { orderToStop } from '../../mount/client/stop-order.js';
import type { DetachResult } from '../../mount/control/interface.js';
import { detachEach } from '../detach-each.js';
import { callersRuntimeDir, chosenBus, endHelp, parseSeconds, type SharedOptions } from '../options.js';

interface StopOptions extends SharedOptions {
  all?: boolean;
  wait?: number;
  force?: boolean;
}

export function register(program: Command): void {
  const command = program
    .command('stop')
    .summary('detach all vbds and end the bus')
    .description(
      'Detaches all vbds of the bus and ends the bus. If a vbd is in use, nothing is detached: exit 4, and the ' +
        'message lists who uses it. With --force, the data of file systems on the vbds is written back first: ' +
        'exit 1 if that fails. Also removes what a dead bus left behind.',
    )
    .option('--all', 'stop all buses')
    .option('--wait <SECONDS>', 'wait up to SECONDS until nobody uses a vbd', parseSeconds)
    .option('--force', 'stop even if vbds are in use: later I/O of their users is EIO, no acknowledged write is lost')
    .action(async (_: unknown, self: Command) => {
      const options = self.optsWithGlobals<StopOptions>();
      await detachEach(await choose(options), options, (place) => stopOne(place, options));
    });
  endHelp(command, ['fusetap stop', 'fusetap stop --wait 60', 'fusetap stop --all --force']);
}

async function choose(options: StopOptions): Promise<BusPlace[]> {
  if (!options.all) return [await chosenBus(options)];
  if (options.bus !== undefined) {
    throw new FusetapError('USAGE', `--all and --bus ${options.bus} contradict each other`, {
      hint: 'give one of them',
    });
  }
  const runtime = callersRuntimeDir();
  const { buses, troubles } = await listBuses(runtime);
  // dead buses too: stop removes what they left behind
  const names = [...buses.map(({ bus }) => bus), ...troubles.map(({ bus }) => bus)];
  return orderToStop(await Promise.all(names.map((name) => resolveBus(name, runtime))));
}

async function stopOne(place: BusPlace, { all, wait, force = false }: StopOptions): Promise<DetachResult> {
  try {
    await closeInherited(place);
    return await stop(place, { force, waitSeconds: wait });
  } catch (error) {
    // a bus may have ended by itself since the list was read
    if (all && error instanceof FusetapError && error.code === 'NOT_FOUND') return { vbds: [], ended: true };
    throw error;
  }
}
