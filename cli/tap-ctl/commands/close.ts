/** `tap-ctl close`: closes the image; the minor stays attached. */
import { closeMinor } from '../../../mount/tap/index.js';
import { NAME_LETTERS, parseName, parseWait, type TapCommand, WAIT_LETTER } from '../command.js';

export const command: TapCommand = {
  usage: 'close <-p pid> <-m minor> [-f even if it is in use] [-t seconds to wait until nobody uses it]',
  summary: 'Closes the image of a minor. The data is durable afterwards, and the minor stays attached.',
  letters: { ...NAME_LETTERS, f: { meaning: 'close it even if it is in use' }, t: WAIT_LETTER },
  run: (given) => closeMinor(parseName(given), { force: given.f === true, ...parseWait(given) }),
};
