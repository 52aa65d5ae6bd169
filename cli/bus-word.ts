/** A bus that is given as an argument, instead of with `--bus`. */
import { FusetapError } from '../drivers/errors.js';
import type { SharedOptions } from './options.js';

/** The options with that bus. @throws FusetapError USAGE if `--bus` names another */
export function withBus<Options extends SharedOptions>(word: string | undefined, options: Options): Options {
  if (word === undefined) return options;
  if (options.bus !== undefined && options.bus !== word) {
    throw new FusetapError('USAGE', `the buses ${word} and --bus ${options.bus} contradict each other`, {
      hint: 'give one of them',
    });
  }
  return { ...options, bus: word };
}
