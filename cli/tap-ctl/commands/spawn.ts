/** `tap-ctl spawn`: starts a tapdisk without vbds. */
import { spawnTapdisk } from '../../../mount/tap/index.js';
import { print } from '../../output.js';
import { ownRuntimeDir, type TapCommand } from '../command.js';

export const command: TapCommand = {
  usage: 'spawn',
  summary: 'Starts a tapdisk without vbds, and prints its pid. It ends when its last minor is detached.',
  letters: {},
  async run() {
    const pid = await spawnTapdisk(ownRuntimeDir());
    print(process.stdout.isTTY ? `tapdisk spawned with pid ${pid}` : String(pid));
  },
};
