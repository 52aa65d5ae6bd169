/** `tap-ctl check`: checks whether images can be attached here. */
import { constants } from 'node:os';
import { FusetapError } from '../../../drivers/errors.js';
import { examine } from '../../../mount/doctor/index.js';
import { print } from '../../output.js';
import type { TapCommand } from '../command.js';

export const command: TapCommand = {
  usage: 'check',
  summary: 'Checks whether images can be attached on this machine. fusetap-doctor(1) says more.',
  letters: {},
  async run() {
    const { ok, checks } = await examine(process.env, process.geteuid?.() ?? 0);
    if (ok) return print('ok');
    const missing = checks.find((check) => check.needed && !check.ok);
    throw new FusetapError('UNSUPPORTED', `${missing?.name}: ${missing?.detail}`, {
      hint: missing?.hint ?? 'run fusetap doctor for details',
      errno: constants.errno.ENOSYS,
    });
  },
};
