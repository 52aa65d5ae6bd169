/** `tap-ctl attach`: attaches a minor to a tapdisk. */
import { attachMinor } from '../../../mount/tap/index.js';
import { NAME_LETTERS, parseName, type TapCommand } from '../command.js';

export const command: TapCommand = {
  usage: 'attach <-p pid> <-m minor>',
  summary: 'Attaches a minor to a tapdisk.',
  letters: NAME_LETTERS,
  run: (given) => attachMinor(parseName(given)),
};
