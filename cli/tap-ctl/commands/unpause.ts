/** `tap-ctl unpause`: resumes the I/O; with -a, on another image. */
import { unpauseMinor } from '../../../mount/tap/index.js';
import { findImage, NAME_LETTERS, parseName, type TapCommand } from '../command.js';

export const command: TapCommand = {
  usage: 'unpause <-p pid> <-m minor> [-a type:/path/to/another/image]',
  letters: { ...NAME_LETTERS, a: true },
  run: (given) => unpauseMinor(parseName(given), findImage(given)),
};
