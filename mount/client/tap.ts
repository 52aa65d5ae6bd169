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
} from './tap/life.js';
export { listTaps, statsOfMinor, type TapEntry } from './tap/look.js';
export { allocateMinor, devicePath } from './tap/minors.js';
export { spawnTapdisk } from './tap/tapdisks.js';
