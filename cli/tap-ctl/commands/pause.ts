/** `tap-ctl pause`: pauses the I/O. */
import { pauseMinor } from '../../../mount/tap/index.js';
import { findNumber, NAME_LETTERS, parseName, type TapCommand } from '../command.js';

export const command: TapCommand = {
  usage: 'pause <-p pid> <-m minor> [-t seconds]',
  summary: 'Pauses the I/O: requests under way end, new requests wait.',
  letters: {
    ...NAME_LETTERS,
    t: { value: 'seconds', meaning: 'accepted without effect: requests under way end by themselves' },
  },
  async run(given) {
    // requests in progress end by themselves, so there is nothing to wait for
    findNumber(given, 't');
    await pauseMinor(parseName(given));
  },
};
