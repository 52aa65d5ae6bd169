/** `tap-ctl create`: allocate, spawn, attach and open in one step; if one fails, the others are undone. */
import {
  allocateMinor,
  attachMinor,
  destroyMinor,
  devicePath,
  freeMinor,
  openMinor,
  spawnTapdisk,
  stopTapdisk,
} from '../../../mount/tap/index.js';
import { print } from '../../output.js';
import { IMAGE_LETTERS, IMAGE_USAGE, ownRuntimeDir, parseImage, type TapCommand } from '../command.js';

export const command: TapCommand = {
  usage: `create ${IMAGE_USAGE}`,
  summary:
    'Does allocate, spawn, attach and open in one step, and prints the path of the link. If one of them fails, the others are undone.',
  letters: IMAGE_LETTERS,
  async run(given) {
    const { image, readOnly } = parseImage(given);
    const runtimeDir = ownRuntimeDir();
    const minor = await allocateMinor(runtimeDir);
    let undo = (): Promise<void> => freeMinor({ runtimeDir, minor });
    try {
      const pid = await spawnTapdisk(runtimeDir);
      const name = { runtimeDir, pid, minor };
      undo = async () => {
        await stopTapdisk(runtimeDir, pid);
        await freeMinor(name);
      };
      await attachMinor(name);
      undo = () => destroyMinor(name, { force: true });
      await openMinor(name, image, readOnly);
      print(devicePath(runtimeDir, minor));
    } catch (error) {
      // the first error is more useful than one while undoing
      await undo().catch(() => {});
      throw error;
    }
  },
};
