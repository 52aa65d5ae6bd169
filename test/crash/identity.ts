/** A driver whose backing file has an identity: a file of the harness has none. */
import { frontDisk } from '../../drivers/disk.js';
import type { Driver } from '../../drivers/driver.js';
import { asRaw } from '../../drivers/segments/join-disks.js';

export function withIdentity(driver: Driver, identity: string): Driver {
  return {
    ...driver,
    open: ({ disks: { backing, ...disks }, ...context }) => {
      const parent = backing && frontDisk({ ...asRaw(backing), identity }, { readOnly: true });
      return driver.open({ ...context, disks: { ...disks, ...(parent && { backing: parent }) } });
    },
  };
}
