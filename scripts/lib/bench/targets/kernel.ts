/** The limits: the image itself, and the kernel's loop device on it. */
import { access, constants } from 'node:fs/promises';
import { isInstalled, runCommand } from '../command.js';
import type { Target } from './target.js';

export const raw = {
  name: 'raw',
  description: 'the image file itself: the limit',
  findMissing: async () => null,
  start: async ({ imagePath }) => ({ path: imagePath, pids: [], stop: async () => {} }),
} satisfies Target;

export const loop = {
  name: 'loop',
  description: "the kernel's loop device",

  async findMissing() {
    if (!(await isInstalled('losetup'))) return 'losetup is not installed';
    const usable = access('/dev/loop-control', constants.R_OK | constants.W_OK);
    return usable.then(
      () => null,
      () => 'no loop devices here: that takes root and /dev/loop-control',
    );
  },

  async start({ imagePath, undo }) {
    const device = (await runCommand('losetup', ['--find', '--show', imagePath])).trim();
    let isAttached = true;
    const stop = async (): Promise<void> => {
      if (!isAttached) return;
      await runCommand('losetup', ['--detach', device]);
      isAttached = false;
    };
    undo.defer(stop);
    return { path: device, pids: [], stop };
  },
} satisfies Target;
