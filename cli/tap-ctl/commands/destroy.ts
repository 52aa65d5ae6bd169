/** `tap-ctl destroy`: close, detach and free in one step. */
import { destroyMinor } from '../../../mount/tap/index.js';
import { NAME_LETTERS, parseName, parseWait, type TapCommand } from '../command.js';

export const command: TapCommand = {
  usage: 'destroy <-p pid> <-m minor> [-t seconds to wait until nobody uses it]',
  letters: { ...NAME_LETTERS, t: true },
  run: (given) => destroyMinor(parseName(given), parseWait(given)),
};
