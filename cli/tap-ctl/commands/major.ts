/** `tap-ctl major`: always fails. A vbd is a file, so there is no major number and no device node. */
import { constants } from 'node:os';
import { FusetapError } from '../../../drivers/errors.js';
import type { TapCommand } from '../command.js';

export const command: TapCommand = {
  usage: 'major',
  summary: 'Always fails with ENODEV: a vbd is a file, so there is no device number.',
  letters: { b: { meaning: 'of a block device' }, c: { meaning: 'of a character device' } },
  run() {
    throw new FusetapError('UNSUPPORTED', 'there is no major number: a vbd is a file, not a device', {
      hint: 'use the path that create prints; for a block device: losetup --find --show PATH',
      errno: constants.errno.ENODEV,
    });
  },
};
