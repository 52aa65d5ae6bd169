/** The file system of an image dies, and perhaps is unmounted: the vbd must be detachable, all others unaffected. */
import { runCommand } from '../../../bench/command.js';
import { targetOf } from '../bus.js';
import { proveHealthy } from '../healthy.js';
import { REMOTE_BYTES, RemoteImage } from '../remote-image.js';
import type { Fault } from './fault.js';
import { whyNoRemote } from './hanging-image.js';

let deadSoFar = 0;

export const deadImage: Fault = {
  name: 'dead',
  about: 'the file system of one image dies (FUSE, SIGKILL): it can be detached, and all others go on',
  whyNot: whyNoRemote,
  begin: async (bus, random) => {
    const image = await RemoteImage.serve(bus.stage, `dead-${++deadSoFar}`);
    const disk = await bus.attach({ driver: 'aio', passthrough: 'off', image: image.path, sizeBytes: REMOTE_BYTES });
    const path = disk?.path ?? '';
    const isUnmounted = random.isOneIn(2);
    if (disk !== null) await bus.writer.begin(targetOf(disk));
    const standing = bus.journal.begin(isUnmounted ? 'dead and unmounted' : 'dead', image.path, {
      io: { path, codes: ['ENOTCONN', 'EIO', 'ECONNABORTED', 'ENODEV'] },
    });
    await image.kill();
    if (isUnmounted) await runCommand('umount', ['-l', image.path]);
    return {
      standing,
      during: async () => {
        if (disk === null) return;
        await proveHealthy(bus, random);
        await bus.writer.end(path, false);
        // its last flush fails with an error; the vbd must be detached in spite of that
        await bus.command('detach', ['detach', '--wait', '10', disk.vdev]);
        const isThere = async (): Promise<boolean> => (await bus.info()).vbds.some(({ vdev }) => vdev === disk.vdev);
        if (!(await isThere())) return;
        bus.journal.error(bus.name, `detach of the dead ${disk.vdev} leaves it attached`);
        await bus.command('detach', ['detach', '--force', disk.vdev]);
        if (await isThere()) throw new Error(`detach --force of the dead ${disk.vdev} leaves it attached`);
      },
      undo: () => image.die(),
    };
  },
};
