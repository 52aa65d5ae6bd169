/**
 * The suite that every driver, and every filter, must pass. A driver's whole test is one call:
 *
 *     diskSuite({ name: 'aio', test: t, factory, abilities: { maxSizeBytes: 2 ** 42, holes: true, shrink: true } });
 *
 * It puts the front (disk.ts) before the driver's RawDisk, as fusetap does, and compares with a plain Buffer. Of a test
 * framework it needs `test(name, options, body)`: tap's `t` and node:test's module both will do.
 */
import type { RawDisk } from '../../drivers/driver.js';
import { concurrencyTests } from './concurrency.js';
import { edgeTests } from './edges.js';
import { extentTests } from './extents.js';
import { largeTests } from './large.js';
import { lifecycleTests } from './lifecycle.js';
import type { Piece } from './pattern.js';
import { randomTests } from './random.js';

/** The part of a test framework that is used. A body that rejects has failed. */
export interface SuiteTest {
  test(name: string, options: { skip: string | false }, body: () => Promise<void>): unknown;
}

/** The disk that a test wants: `size` bytes, zeros but for the pieces. */
export interface DiskRequest {
  readonly size: number;
  readonly pieces: readonly Piece[];
  readonly readOnly: boolean;
}

/** A disk made for one test. */
export interface TestDisk {
  /** as the driver's `open` returned it */
  readonly raw: RawDisk;
  /** opens the same disk again after `raw` was closed, as a new server does; missing: its bytes end with it */
  reopen?(): Promise<RawDisk>;
  /** cuts the image below the open disk down to `size` bytes */
  shrink?(size: number): Promise<void>;
  /** gives up everything; `raw` is closed by then */
  dispose(): Promise<void>;
}

export type DiskFactory = (request: DiskRequest) => Promise<TestDisk>;

/** What a disk can do beyond the required; a group of tests that needs more is skipped, with the reason. */
export interface DiskAbilities {
  /** the largest disk that the factory can make, all of it zeros but for a few bytes */
  readonly maxSizeBytes: number;
  /** `extents` reports aligned runs of 1 MiB that were never written, or punched, as holes */
  readonly holes: boolean;
  /** the factory can shrink the image below the disk */
  readonly shrink: boolean;
}

export interface SuiteOptions {
  readonly name: string;
  readonly test: SuiteTest;
  readonly factory: DiskFactory;
  readonly abilities: DiskAbilities;
  /** random runs for each size of disk; default 12 */
  readonly runs?: number;
}

/** Registers the suite's tests. Random tests use FUSETAP_TEST_SEED, if set, to run again what has failed. */
export function diskSuite(options: SuiteOptions): void {
  for (const group of [randomTests, edgeTests, extentTests, lifecycleTests, concurrencyTests, largeTests])
    group(options);
}
