/** The words of a disk spec that are no drivers: Xen's prefixes, and the formats that xl knows. */

/** Words that Xen's tools put before a driver or a path, and that choose nothing here. */
export const PREFIXES: readonly string[] = ['tap', 'tap2', 'tapdisk', 'ioemu', 'file', 'phy'];

/** Formats of xl that are not the bytes as they are: one can be read where a driver has its name. */
export const CODED_FORMATS: readonly string[] = ['qcow', 'qcow2', 'vhd', 'qed'];

/** Every word that xl takes as a format. */
export const FORMATS: readonly string[] = ['raw', ...CODED_FORMATS, 'empty'];
