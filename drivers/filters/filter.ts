/**
 * What a filter is: a disk made from another disk. Filters are handed to fusetap as plain data, because the server that
 * makes them may be replaced at any time and must make the same ones again.
 *
 *      client ──► last filter ──► … ──► first filter ──► the driver's disk
 */
import type { RawDisk } from '../driver.js';

/** Must close `next` when it is closed itself, and may lack what it lacks. */
export type Filter = (next: RawDisk) => RawDisk;

/** A filter as it is asked for: `delay=20` is `{ name: 'delay', value: '20' }`. */
export interface FilterSpec {
  readonly name: string;
  /** empty for a filter that takes none */
  readonly value: string;
}

/** Makes a filter of its value. @throws FusetapError USAGE for a value that makes no sense for any disk */
export type FilterMaker = (value: string) => Filter;
