/** `tap-ctl unpause`: resumes the I/O; with -a, on another image. */
import { unpauseMinor } from '../../../mount/tap/index.js';
import { findImage, NAME_LETTERS, parseName, type TapCommand } from '../command.js';

export const command: TapCommand = {
  usage: 'unpause <-p pid> <-m minor> [-a type:/path/to/another/image]',
  summary: 'Resumes the I/O. With -a, on another image of the same size: open files stay open.',
  letters: { ...NAME_LETTERS, a: { value: 'type:path', meaning: 'continue on this image' } },
  run: (given) => unpauseMinor(parseName(given), findImage(given)),
};
