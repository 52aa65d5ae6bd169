/**
 * Begins a bus; where the kernel transport cannot run and the user named none, on fuse-native.
 */
import { FusetapError } from '../../drivers/errors.js';
import { isAlreadyRunning, type StartOptions, startKeeper } from '../keeper/start.js';
import type { BusPlace } from '../runtime/bus-place.js';

/**
 * Starts the keeper of a bus.
 * @param note is told where the bus runs on another transport than the usual
 * @param startIt what starts a keeper, for tests
 * @throws FusetapError what startKeeper throws: of the kernel transport where neither can run
 */
export async function beginBus(
  place: BusPlace,
  options: StartOptions,
  note: (text: string) => void,
  startIt: (place: BusPlace, options: StartOptions) => Promise<unknown> = startKeeper,
): Promise<void> {
  try {
    await startIt(place, options);
  } catch (error) {
    const isUnable = error instanceof FusetapError && error.code === 'UNSUPPORTED';
    if (!isUnable || options.transport !== undefined) throw error;
    await startIt(place, { ...options, transport: 'fuse-native' }).catch((failure: unknown) => {
      throw isAlreadyRunning(failure) ? failure : error;
    });
    note(`bus ${place.name} runs on transport fuse-native, as the kernel transport cannot run here: ${error.message}`);
  }
}
