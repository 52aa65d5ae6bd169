/** Translates an error of commander to a FusetapError. */
import type { CommanderError } from 'commander';
import { FusetapError } from '../drivers/errors.js';

/**
 * commander's message is `error: …`, perhaps with `(Did you mean …?)` in a second line.
 * @param hint used if commander has no suggestion
 */
export function usageError(error: CommanderError, hint: string): FusetapError {
  const [first = '', suggestion] = error.message.replace(/^error: /, '').split('\n');
  return new FusetapError('USAGE', first.replace(/\.$/, ''), {
    hint: suggestion?.replace(/^\(Did you mean (.*)\?\)$/, 'did you mean $1?') ?? hint,
    cause: error,
  });
}
