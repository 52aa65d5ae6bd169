/** `tap-ctl attach`: a minor gets its tapdisk. */
import { attachMinor } from '../../../mount/tap/index.js';
import { NAME_LETTERS, parseName, type TapCommand } from '../command.js';

export const command: TapCommand = {
  usage: 'attach <-p pid> <-m minor>',
  letters: NAME_LETTERS,
  run: (given) => attachMinor(parseName(given)),
};
