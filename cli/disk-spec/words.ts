/**
 * The words of a disk spec that name a driver, a format or nothing at all: the only place of the grammar to change when
 * a driver is added.
 */

/** Drivers that a spec can name without `--driver`. */
export const DRIVER_NAMES: readonly string[] = ['aio', 'ram', 'sync'];

/** What a spec without a driver's name means. */
export const DEFAULT_DRIVER = 'aio';

/** Drivers that have nothing to show without an image; all others may be given an empty path, as `ram:`. */
export const DRIVERS_OF_FILES: readonly string[] = ['aio', 'sync'];

/** Words that Xen's tools put before a driver or a path, and that choose nothing here. */
export const PREFIXES: readonly string[] = ['tap', 'tap2', 'tapdisk', 'ioemu', 'file', 'phy'];

/** Formats that xl knows and no driver here can read. */
export const UNSUPPORTED_FORMATS: readonly string[] = ['qcow', 'qcow2', 'vhd', 'qed'];

/** Every word that xl takes as a format. */
export const FORMATS: readonly string[] = ['raw', ...UNSUPPORTED_FORMATS, 'empty'];
