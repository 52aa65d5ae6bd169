/** sfdisk, without the sync(2) at its end: that is of the whole machine, and would wait for disks of other tests. */

/** What its words are put behind. */
export const SFDISK = ['strace', '-qq', '-o', '/dev/null', '-e', 'trace=sync', '-e', 'inject=sync:retval=0', 'sfdisk'];

/** What it needs to be installed. */
export const SFDISK_PROGRAMS = ['sfdisk', 'strace'];

/** What sfdisk says of a partition; start and size are sectors. */
export interface SfdiskPartition {
  node: string;
  start: number;
  size: number;
  type: string;
  name?: string;
  uuid?: string;
}
