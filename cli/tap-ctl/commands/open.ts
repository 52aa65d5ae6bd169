/** `tap-ctl open`: opens an image for an attached minor. */
import { openMinor } from '../../../mount/tap/index.js';
import { IMAGE_LETTERS, IMAGE_USAGE, NAME_LETTERS, parseImage, parseName, type TapCommand } from '../command.js';

export const command: TapCommand = {
  usage: `open <-p pid> <-m minor> ${IMAGE_USAGE}`,
  summary: 'Opens an image for an attached minor. The link then leads to the vbd.',
  letters: { ...NAME_LETTERS, ...IMAGE_LETTERS },
  async run(given) {
    const name = parseName(given);
    const { image, readOnly } = parseImage(given);
    await openMinor(name, image, readOnly);
  },
};
