/** The file system of an image hangs until it is proved that all others go on. */
import { isInstalled } from '../../../bench/command.js';
import type { Bus } from '../bus.js';
import { proveHealthy } from '../healthy.js';
import { REMOTE_BYTES, RemoteImage } from '../remote-image.js';
import type { Fault } from './fault.js';

const images = new WeakMap<Bus, RemoteImage>();

export const whyNoRemote = async (): Promise<string | null> =>
  (await isInstalled('qemu-storage-daemon')) ? null : 'qemu-storage-daemon is not installed';

export const hangingImage: Fault = {
  name: 'hang',
  about: 'the file system of one image hangs (FUSE, SIGSTOP): commands and I/O on all others must go on',
  whyNot: whyNoRemote,
  prepare: async (bus) => {
    const image = await RemoteImage.serve(bus.stage, `hanging-${bus.name}`);
    await bus.adopt({ driver: 'aio', passthrough: 'off', image: image.path, sizeBytes: REMOTE_BYTES }, bus.sick);
    images.set(bus, image);
  },
  begin: async (bus, random) => {
    const image = images.get(bus);
    if (image === undefined) throw new TypeError('the fault was not prepared');
    const isServerKilled = random.isOneIn(4);
    let restarts = 0;
    image.hang();
    return {
      standing: bus.journal.begin(isServerKilled ? 'hang and kill' : 'hang', image.path),
      during: async () => {
        if (!isServerKilled) return proveHealthy(bus, random);
        // it may be impossible to kill a server that waits there: then the bus waits too, but commands are answered
        restarts = await bus.killServer();
        await bus.demand('ls', ['ls', '--json'], { limitMs: bus.healthyLimitMs });
        await bus.demand('show', ['show', '--json'], { limitMs: bus.healthyLimitMs });
      },
      undo: async () => image.goOn(),
      after: async () => {
        if (isServerKilled) await bus.settled(restarts);
        await bus.writer.progress(
          [...bus.disks, ...bus.sick].map(({ path }) => path),
          bus.healthyLimitMs,
        );
      },
    };
  },
};
