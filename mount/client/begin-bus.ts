/**
 * Starts a bus. If the kernel transport cannot run and the user did not choose one, uses fuse-native.
 */
import { FusetapError } from '../../drivers/errors.js';
import { isAlreadyRunning, type StartOptions, startKeeper } from '../keeper/start.js';
import type { BusPlace } from '../runtime/bus-place.js';

export { isAlreadyRunning };

/**
 * Starts the keeper of a bus.
 * @param note called with a remark if the bus runs on fuse-native
 * @param startIt starts a keeper; tests replace it
 * @throws FusetapError as startKeeper; if neither transport can run, the error of the kernel transport
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
