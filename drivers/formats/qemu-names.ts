/** The formats of images, as QEMU calls them, and the drivers that read them. */

const DRIVERS: ReadonlyMap<string, string> = new Map([
  ['raw', 'aio'],
  ['qcow2', 'qcow2'],
  ['vpc', 'vhd'],
  ['vhdx', 'vhdx'],
  ['vmdk', 'vmdk'],
  ['vdi', 'vdi'],
]);

/** The driver for a format; undefined if there is none. */
export function driverOfFormat(format: string): string | undefined {
  return DRIVERS.get(format);
}

/** What QEMU calls the format that a driver reads: `vpc` for vhd. A driver of no format has its own name. */
export function formatOfDriver(driver: string): string {
  for (const [format, name] of DRIVERS) if (name === driver) return format;
  return driver;
}

/** The formats that have a driver. */
export const formatsWithDriver: readonly string[] = [...DRIVERS.keys()];
