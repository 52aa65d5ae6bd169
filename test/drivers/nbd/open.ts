/** Opens disks of nbd in tests, without a bus. */
import type { Kept, OpenContext, RawDisk } from '../../../drivers/driver.js';
import nbd from '../../../drivers/nbd/index.js';

export interface OpenWish {
  readonly readOnly?: boolean;
  readonly options?: Readonly<Record<string, string>>;
  readonly kept?: Kept | null;
  readonly host?: OpenContext['host'];
}

export function openNbd(
  uri: string,
  { readOnly = false, options = {}, kept = null, host }: OpenWish = {},
): Promise<RawDisk> {
  const none = { files: {}, disks: {}, memory: null, state: null, isRepaired: true };
  return nbd.open({ ...none, readOnly, options: { uri, ...options }, kept, host });
}
