/**
 * Disk specs: the strings in which users, xm and xl name a disk. The one door to cli/disk-spec/.
 */
export { type ListedDisk, lineAt, listDisks, parseDiskList } from './disk-list.js';
export type { DeviceType, DiskSpec } from './disk-spec.js';
export { combineWords, type ParseOptions, parseSpec, parseWords } from './parse.js';
export { printSpec, printXlSpec } from './print.js';
export { PREFIXES } from './words.js';
