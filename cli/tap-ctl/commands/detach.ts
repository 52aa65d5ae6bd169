/** `tap-ctl detach`: detaches a minor from its tapdisk, which ends with the last one. */
import { detachMinor } from '../../../mount/tap/index.js';
import { NAME_LETTERS, parseName, type TapCommand } from '../command.js';

export const command: TapCommand = {
  usage: 'detach <-p pid> <-m minor>',
  summary: 'Detaches a minor from its tapdisk, which ends with the last one.',
  letters: NAME_LETTERS,
  run: (given) => detachMinor(parseName(given)),
};
