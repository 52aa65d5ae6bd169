/** `tap-ctl free`: frees a minor. */
import { freeMinor } from '../../../mount/tap/index.js';
import { ownRuntimeDir, parseNumber, type TapCommand } from '../command.js';

export const command: TapCommand = {
  usage: 'free <-m minor>',
  letters: { m: true },
  run: (given) => freeMinor({ runtimeDir: ownRuntimeDir(), minor: parseNumber(given, 'm') }),
};
