/** `tap-ctl free`: frees a minor. */
import { freeMinor } from '../../../mount/tap/index.js';
import { NAME_LETTERS, ownRuntimeDir, parseNumber, type TapCommand } from '../command.js';

export const command: TapCommand = {
  usage: 'free <-m minor>',
  summary: 'Frees a minor.',
  letters: { m: NAME_LETTERS.m },
  run: (given) => freeMinor({ runtimeDir: ownRuntimeDir(), minor: parseNumber(given, 'm') }),
};
