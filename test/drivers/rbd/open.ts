/** Opens disks of rbd in tests, without a bus. */
import type { Kept, OpenContext, RawDisk } from '../../../drivers/driver.js';
import rbd from '../../../drivers/rbd/index.js';

export interface OpenWish {
  readonly readOnly?: boolean;
  readonly isShared?: boolean;
  readonly kept?: Kept | null;
  readonly host?: OpenContext['host'];
}

export function openRbd(options: Readonly<Record<string, string>>, wish: OpenWish = {}): Promise<RawDisk> {
  const none = { files: {}, disks: {}, memory: null, state: null, isRepaired: true };
  return rbd.open({ ...none, readOnly: false, options, ...wish });
}
