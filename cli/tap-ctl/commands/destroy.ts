/** `tap-ctl destroy`: close, detach and free in one step. */
import { destroyMinor } from '../../../mount/tap/index.js';
import { NAME_LETTERS, parseName, parseWait, type TapCommand, WAIT_LETTER } from '../command.js';

export const command: TapCommand = {
  usage: 'destroy <-p pid> <-m minor> [-t seconds to wait until nobody uses it]',
  summary: 'Does close, detach and free in one step, as far as they are necessary.',
  letters: { ...NAME_LETTERS, t: WAIT_LETTER },
  run: (given) => destroyMinor(parseName(given), parseWait(given)),
};
