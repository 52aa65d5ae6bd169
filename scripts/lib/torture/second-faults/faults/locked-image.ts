/** An attached image that cannot be opened again: immutable for root, read-only for an ordinary user. */
import { chmod } from 'node:fs/promises';
import { join } from 'node:path';
import { isInstalled, runCommand } from '../../../bench/command.js';
import type { Bus } from '../bus.js';
import type { Stage } from '../stage.js';
import type { Fault } from './fault.js';

async function whyNot(stage: Stage): Promise<string | null> {
  if (stage.person.name === 'user') return null;
  if (!(await isInstalled('chattr'))) return 'chattr is not installed';
  const trial = await stage.image('locked.img', 4096);
  const refused = await runCommand('chattr', ['+i', trial]).catch(() => `chattr +i is refused in ${join(trial, '..')}`);
  await runCommand('chattr', ['-i', trial]).catch(() => {});
  return refused === '' ? null : refused;
}

const lock = (bus: Bus, image: string): Promise<unknown> =>
  bus.stage.person.name === 'user' ? chmod(image, 0o444) : runCommand('chattr', ['+i', image]);
const unlock = (bus: Bus, image: string): Promise<unknown> =>
  bus.stage.person.name === 'user' ? chmod(image, 0o644) : runCommand('chattr', ['-i', image]);

export const lockedImage: Fault = {
  name: 'locked',
  about: 'an attached image cannot be opened again (chattr +i, chmod 0444); then its server is killed',
  whyNot,
  begin: async (bus, random) => {
    const { image, path, driver } = random.pick(bus.disks);
    // ext4 also checks at each write whether a file is immutable
    const excuses = driver === 'ram' ? {} : { io: { path, codes: ['EPERM'] } };
    const standing = bus.journal.begin('locked', path, excuses);
    await lock(bus, image);
    let restarts = 0;
    return {
      standing,
      during: async () => {
        restarts = await bus.killServer();
        await bus.settled(restarts);
      },
      undo: () => unlock(bus, image).then(() => {}),
      after: async () => void (await bus.writer.progress([path], bus.healthyLimitMs)),
    };
  },
};
