/** The file system of an image has less room than the disk: its writer gets ENOSPC, and nothing else is affected. */
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '../../../bench/command.js';
import type { Bus, Disk } from '../bus.js';
import { proveHealthy } from '../healthy.js';
import { always, type Fault } from './fault.js';

const ROOM_BYTES = 4 << 20;
const IMAGE_BYTES = 8 << 20;
const FILLER_BYTES = 1 << 20;

const directoryOf = (bus: Bus): string => join(bus.stage.directory, `small-${bus.name}`);

export const fullDisk: Fault = {
  name: 'nospace',
  about: 'the file system of one image is full: its writer gets ENOSPC, and nothing else happens',
  whyNot: always,
  prepare: async (bus) => {
    const { stage } = bus;
    const directory = await stage.place(`small-${bus.name}`);
    const options = [`size=${ROOM_BYTES}`, 'mode=0755', ...stage.person.mountOptions].join(',');
    await runCommand('mount', ['-t', 'tmpfs', '-o', options, 'fusetap-torture', directory]);
    const image = await stage.image('small.img', IMAGE_BYTES, directory);
    const disk: Disk = { driver: 'aio', passthrough: 'off', image, sizeBytes: IMAGE_BYTES };
    // the disk is larger than the free space
    await bus.adopt(disk, bus.sick, { io: { codes: ['ENOSPC'] } });
  },
  begin: async (bus, random) => {
    const filler = join(directoryOf(bus), 'filler');
    await writeFile(filler, Buffer.alloc(FILLER_BYTES)).catch(() => {});
    return {
      standing: bus.journal.begin('nospace', directoryOf(bus)),
      during: async () => {
        await proveHealthy(bus, random);
        await bus.settled(await bus.killServer());
      },
      undo: () => rm(filler, { force: true }),
      after: async () => {
        await bus.writer.progress(
          [...bus.disks, ...bus.sick].map(({ path }) => path),
          bus.healthyLimitMs,
        );
      },
    };
  },
};
