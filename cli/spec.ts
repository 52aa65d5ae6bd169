/**
 * Disk specs: the strings in which users, xm and xl name a disk. The one door to cli/spec/.
 */
export { type ListedDisk, lineAt, listDisks, parseDiskList } from './spec/disk-list.js';
export type { DeviceType, DiskSpec } from './spec/disk-spec.js';
export { DEFAULT_DRIVER, DRIVER_NAMES, PREFIXES } from './spec/drivers.js';
export { combineWords, type ParseOptions, parseSpec, parseWords } from './spec/parse.js';
export { printSpec, printXlSpec } from './spec/print.js';
