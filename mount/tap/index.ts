/** What tap-ctl does, for its commands. */
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
