/** Translates an error of commander to a FusetapError. */
import type { CommanderError } from 'commander';
import { FusetapError } from '../drivers/errors.js';

/**
 * commander's message is `error: …`, perhaps with `(Did you mean …?)` in a second line.
 * @param help the hint if there is no other
 * @param known a hint that is better than commander's suggestion
 */
export function usageError(error: CommanderError, help: string, known?: string): FusetapError {
  const [first = '', suggestion] = error.message.replace(/^error: /, '').split('\n');
  return new FusetapError('USAGE', first.replace(/\.$/, ''), {
    hint: known ?? suggestion?.replace(/^\(Did you mean (.*)\?\)$/, 'did you mean $1?') ?? help,
    cause: error,
  });
}
