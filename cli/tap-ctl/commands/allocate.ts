/** `tap-ctl allocate`: reserves a minor, and prints the path for it. */
import { allocateMinor, devicePath } from '../../../mount/tap/index.js';
import { print } from '../../output.js';
import { ownRuntimeDir, type TapCommand } from '../command.js';

export const command: TapCommand = {
  usage: 'allocate',
  summary: 'Reserves a minor, and prints the path of its link.',
  letters: {},
  async run() {
    const runtimeDir = ownRuntimeDir();
    print(devicePath(runtimeDir, await allocateMinor(runtimeDir)));
  },
};
