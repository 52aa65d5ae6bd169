/**
 * Whether vbds have a file as their image. Looks at that file only, and at no image of a vbd: one that has nothing to do with it
 * may be on a disk that hangs.
 */
import { realpathSync, statSync } from 'node:fs';
import { deviceName } from '../../../system/proc.js';
import { readBusRecords } from '../../runtime/bus-record.js';
import { listBuses } from '../list-buses.js';

/** False also if there is no such file. */
export async function isImageOfVbd(path: string, runtimeDir: string): Promise<boolean> {
  let real: string;
  let identity: string;
  try {
    real = realpathSync(path);
    const stats = statSync(real, { bigint: true });
    // as `identityOf` of mount/images writes it into the record of a bus
    identity = stats.isBlockDevice() ? `block:${deviceName(stats.rdev)}` : `${deviceName(stats.dev)}:${stats.ino}`;
  } catch {
    return false;
  }
  // a path of an image may have a link in it, so the image is also known by its identity
  if (readBusRecords(runtimeDir).some(({ vbds }) => vbds.some((vbd) => vbd.identity === identity))) return true;
  const { buses } = await listBuses(runtimeDir);
  return buses.some(({ vbds }) => vbds.some(({ image, movedTo }) => real === (movedTo ?? image)));
}
