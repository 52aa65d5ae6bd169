/** The words of a disk spec that are not drivers: Xen's prefixes, and the formats of xl. */

/** Words that Xen's tools put before a driver or a path; they have no effect here. */
export const PREFIXES: readonly string[] = ['tap', 'tap2', 'tapdisk', 'ioemu', 'file', 'phy'];

/** Formats of xl, of blktap and of qemu-img other than raw: fusetap reads one if a driver has its name. */
export const CODED_FORMATS: readonly string[] = ['qcow', 'qcow2', 'vhd', 'vhdx', 'vmdk', 'vdi', 'qed'];

/** All words that are a format in the second field of a spec. */
export const FORMATS: readonly string[] = ['raw', ...CODED_FORMATS, 'empty'];
