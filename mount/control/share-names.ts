/** The names under which ram images can be shared. */
import { FusetapError } from '../../drivers/errors.js';
import { quoted } from '../../drivers/quote.js';

/** The longest name of a shared image, in characters. */
export const SHARE_NAME_LIMIT = 64;

/** Whether a word is a valid name. An identity is not, because it has colons. */
export function isShareName(word: string): boolean {
  return word.length <= SHARE_NAME_LIMIT && /^[A-Za-z0-9._-]+$/.test(word);
}

/** @throws FusetapError USAGE */
export function checkShareName(word: string): void {
  if (isShareName(word)) return;
  throw new FusetapError('USAGE', `not a name to share a ram image under: ${quoted(word)}`, {
    hint: `at most ${SHARE_NAME_LIMIT} letters, digits, ".", "_" and "-"`,
  });
}
