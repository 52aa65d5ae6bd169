/** `tap-ctl close`: closes the image; the minor stays attached. */
import { closeMinor } from '../../../mount/tap/index.js';
import { NAME_LETTERS, parseName, parseWait, type TapCommand } from '../command.js';

export const command: TapCommand = {
  usage: 'close <-p pid> <-m minor> [-f even if it is in use] [-t seconds to wait until nobody uses it]',
  letters: { ...NAME_LETTERS, f: false, t: true },
  run: (given) => closeMinor(parseName(given), { force: given.f === true, ...parseWait(given) }),
};
