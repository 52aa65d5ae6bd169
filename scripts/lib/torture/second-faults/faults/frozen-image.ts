/** The file system of an image is frozen (fsfreeze) until it is proved that all others go on. */
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { isInstalled, runCommand } from '../../../bench/command.js';
import type { Bus } from '../bus.js';
import { proveHealthy } from '../healthy.js';
import type { Fault } from './fault.js';

const FILE_SYSTEM_BYTES = 32 << 20;
const IMAGE_BYTES = 4 << 20;

const directoryOf = (bus: Bus): string => join(bus.stage.directory, `frozen-${bus.name}`);

export const frozenImage: Fault = {
  name: 'freeze',
  about: 'the file system of one image is frozen (fsfreeze): commands and I/O on all others must go on',
  whyNot: async () => {
    for (const program of ['fsfreeze', 'mkfs.ext4'])
      if (!(await isInstalled(program))) return `${program} is not installed`;
    return access('/dev/loop-control').then(
      () => null,
      () => 'there are no loop devices',
    );
  },
  prepare: async (bus) => {
    const { stage } = bus;
    const fileSystem = await stage.image(`frozen-${bus.name}.ext4`, FILE_SYSTEM_BYTES);
    await runCommand('mkfs.ext4', ['-q', '-F', fileSystem]);
    const directory = await stage.place(`frozen-${bus.name}`);
    await runCommand('mount', ['-o', 'loop', fileSystem, directory]);
    stage.undo.defer(() => runCommand('fsfreeze', ['-u', directory]).catch(() => {}));
    stage.person.give(directory);
    const image = await stage.image('frozen.img', IMAGE_BYTES, directory);
    await bus.adopt({ driver: 'aio', passthrough: 'off', image, sizeBytes: IMAGE_BYTES }, bus.sick);
  },
  begin: async (bus, random) => {
    const directory = directoryOf(bus);
    await runCommand('fsfreeze', ['-f', directory]);
    return {
      standing: bus.journal.begin('freeze', directory),
      during: () => proveHealthy(bus, random),
      undo: () => runCommand('fsfreeze', ['-u', directory]).then(() => {}),
      after: async () => {
        await bus.writer.progress(
          [...bus.disks, ...bus.sick].map(({ path }) => path),
          bus.healthyLimitMs,
        );
      },
    };
  },
};
