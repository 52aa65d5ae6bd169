/** `tap-ctl pause`: pauses the I/O. */
import { pauseMinor } from '../../../mount/tap/index.js';
import { findNumber, NAME_LETTERS, parseName, type TapCommand } from '../command.js';

export const command: TapCommand = {
  usage: 'pause <-p pid> <-m minor> [-t seconds]',
  letters: { ...NAME_LETTERS, t: true },
  async run(given) {
    // requests in progress end by themselves, so there is nothing to wait for
    findNumber(given, 't');
    await pauseMinor(parseName(given));
  },
};
