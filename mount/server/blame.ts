/** Finds the driver whose code caused an error that nobody handled: by the places that the stack of the error names. */
import { dirname, isAbsolute } from 'node:path';
import { pathToFileURL } from 'node:url';

/** A disk that is open, or being opened. */
export interface DriversDisk {
  /** its vdev */
  readonly name: string;
  readonly driver: string;
}

/** The driver, and the vdevs of its disks. */
export interface Blamed {
  readonly driver?: string;
  readonly vdev?: string;
}

/** @returns nothing if the error does not come from the code of a third-party driver */
export function blame(error: unknown, disks: readonly DriversDisk[]): Blamed {
  const stack = error instanceof Error ? (error.stack ?? '') : '';
  const drivers = [...new Set(disks.map(({ driver }) => driver))].filter((driver) => isAbsolute(driver));
  const names = (path: string): boolean => stack.includes(pathToFileURL(path).href);
  // a package has other files beside its entry
  const driver = drivers.find((path) => names(path)) ?? drivers.find((path) => names(`${dirname(path)}/`));
  if (driver === undefined) return {};
  const own = disks.filter((disk) => disk.driver === driver);
  return { driver, vdev: own.map(({ name }) => name).join(' ') };
}
