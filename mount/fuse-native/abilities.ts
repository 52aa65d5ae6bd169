/** The abilities of libfuse 2 and the package fuse-native; docs/transports.md has them as a table. */
import type { Abilities } from '../transport/transport.js';

export const FUSE_NATIVE_ABILITIES: Abilities = {
  restart: false,
  passthrough: false,
  fallocate: false,
  seekData: false,
  sizeIoctl: false,
  singleTimes: false,
};
