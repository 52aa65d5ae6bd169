/** The functions behind the commands of tap-ctl. */
export {
  attachMinor,
  type CloseOptions,
  closeMinor,
  destroyMinor,
  detachMinor,
  freeMinor,
  openMinor,
  pauseMinor,
  stopTapdisk,
  type TapImage,
  type TapName,
  unpauseMinor,
} from './life.js';
export { listTaps, statsOfMinor, type TapEntry } from './look.js';
export { allocateMinor, devicePath } from './minors.js';
export { spawnTapdisk } from './tapdisks.js';
