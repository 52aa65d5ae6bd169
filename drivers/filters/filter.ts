/**
 * A filter is a disk made from another disk. Filters are given to fusetap as plain data, because the server that makes
 * them may be replaced at any time, and the next server must make the same filters again.
 *
 *      client ──► last filter ──► … ──► first filter ──► the driver's disk
 */
import type { RawDisk } from '../driver.js';

/** The disk must close `next` when it is closed, and may lack the optional calls that `next` lacks. */
export type Filter = (next: RawDisk) => RawDisk;

/** A filter in a request: `delay=20` is `{ name: 'delay', value: '20' }`. */
export interface FilterSpec {
  readonly name: string;
  /** empty for a filter that takes no value */
  readonly value: string;
}

/** Makes a filter from its value. @throws FusetapError USAGE for a value that is wrong for any disk */
export type FilterMaker = (value: string) => Filter;
