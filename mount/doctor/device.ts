/** /dev/fuse: without it there is no bus. */
import { closeSync, constants, openSync, statSync } from 'node:fs';
import { type Finding, fine, lacking } from './check.js';

const DEVICE = '/dev/fuse';

/** Whether the device exists and this user can open it. */
export function lookAtDevice(): Finding {
  const stats = statSync(DEVICE, { throwIfNoEntry: false });
  if (stats === undefined) return lacking(`there is no ${DEVICE}`, 'modprobe fuse; in a container, pass the device in');
  const mode = (stats.mode & 0o7777).toString(8).padStart(4, '0');
  try {
    closeSync(openSync(DEVICE, constants.O_RDWR));
    return fine(`${DEVICE}, mode ${mode}`);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const hint = code === 'EACCES' ? `as root: chmod 0666 ${DEVICE}` : 'in a container, allow the device 10:229';
    return lacking(`${DEVICE}, mode ${mode}, cannot be opened: ${code}`, hint);
  }
}
