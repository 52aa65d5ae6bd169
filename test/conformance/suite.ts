/**
 * The suite that every driver, and every filter, must pass. A driver's whole test is one call:
 *
 *     diskSuite({ name: 'aio', test: t, factory, abilities: { maxSizeBytes: 2 ** 42, holes: true, shrink: true } });
 *
 * It puts the front (disk.ts) before the driver's RawDisk, as fusetap does, and compares it with a plain Buffer. The
 * test framework must have `test(name, options, body)`: both tap's `t` and the module node:test work.
 */
import type { RawDisk } from '../../drivers/driver.js';
import { concurrencyTests } from './concurrency.js';
import { edgeTests } from './edges.js';
import { extentTests } from './extents.js';
import { growthTests } from './growth.js';
import { largeTests } from './large.js';
import { lifecycleTests } from './lifecycle.js';
import type { Piece } from './pattern.js';
import { randomTests } from './random.js';

/** The part of a test framework that the suite uses. A test fails if its body rejects. */
export interface SuiteTest {
  test(name: string, options: { skip: string | false }, body: () => Promise<void>): unknown;
}

/** The disk that a test needs: `size` bytes, all zeros except the pieces. */
export interface DiskRequest {
  readonly size: number;
  readonly pieces: readonly Piece[];
  readonly readOnly: boolean;
}

/** A disk made for one test. */
export interface TestDisk {
  /** as the driver's `open` returned it */
  readonly raw: RawDisk;
  /**
   * opens the same disk again after `raw` was closed, as a new server does; omit it if the bytes are lost by closing
   */
  reopen?(): Promise<RawDisk>;
  /** truncates the image of the open disk to `size` bytes */
  shrink?(size: number): Promise<void>;
  /** frees everything; `raw` is closed before */
  dispose(): Promise<void>;
}

export type DiskFactory = (request: DiskRequest) => Promise<TestDisk>;

/** The optional abilities of a disk. Tests that need a missing ability are skipped, with the reason. */
export interface DiskAbilities {
  /** the size of the largest disk that the factory can make, all zeros except a few bytes */
  readonly maxSizeBytes: number;
  /** `extents` reports aligned runs of 1 MiB that were never written, or punched, as holes */
  readonly holes: boolean;
  /** the factory can shrink the image of an open disk */
  readonly shrink: boolean;
  /** the disk can become larger: it has `growth`; default: false */
  readonly growth?: boolean;
  /** the driver can write; default: true */
  readonly writes?: boolean;
}

const ONLY_READS = 'its driver only reads';

/** Why a test that writes is skipped. */
export function unlessWritten({ writes = true }: DiskAbilities): string | false {
  return writes ? false : ONLY_READS;
}

export interface SuiteOptions {
  readonly name: string;
  readonly test: SuiteTest;
  readonly factory: DiskFactory;
  readonly abilities: DiskAbilities;
  /** random runs for each size of disk; default 12 */
  readonly runs?: number;
}

/** Registers the tests of the suite. Set FUSETAP_TEST_SEED to repeat a failed random test. */
export function diskSuite(options: SuiteOptions): void {
  for (const group of [randomTests, edgeTests, extentTests, lifecycleTests, concurrencyTests, growthTests, largeTests])
    group({ ...options, test: withoutWrites(options.test) });
}

/** Few drivers only read, and many tests write: these are not listed as skipped. */
function withoutWrites(test: SuiteTest): SuiteTest {
  return {
    test: (name, { skip }, body) => (skip === ONLY_READS ? undefined : test.test(name, { skip }, body)),
  };
}
