/**
 * Disk specs: the strings that describe a disk for users, xm and xl. The only entrance to cli/disk-spec/.
 */
export { type ListedDisk, lineAt, listDisks, parseDiskList } from './disk-list.js';
export type { DeviceType, DiskSpec } from './disk-spec.js';
export { type MountWords, parseMountWords } from './mount-words.js';
export { combineWords, namesDriver, type ParseOptions, parseSpec, parseWords, pathSpec } from './parse.js';
export { printSpec, printXlSpec } from './print.js';
export { isVdevField } from './vdev.js';
export { PREFIXES } from './words.js';
