/** The contract of an examiner, which tells what an image is and whether it is sound: types only. */
import type { Disk } from '../disk.js';

export type Fact = null | boolean | number | string;

/** A file that an image names. */
export interface NamedFile {
  readonly role: 'backing' | 'data' | 'extent';
  /** hostile input */
  readonly name: string;
  /** as QEMU calls it; null if the image does not state it */
  readonly format: string | null;
}

/** What an image says of itself. */
export interface Description {
  /** of its disk, in bytes */
  readonly size: number;
  /** by name, as `clusterBytes`; rows of a table have the same names */
  readonly facts: Readonly<Record<string, Fact | readonly string[] | readonly Readonly<Record<string, Fact>>[]>>;
  readonly names: readonly NamedFile[];
  /** see RawDisk.identity */
  readonly identity?: string;
}

export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** Clusters that are counted as used, and nobody uses; or more often than they are used. They only waste space. */
export interface Leaks {
  readonly clusters: number;
  readonly bytes: number;
  /** the first ones, at most 100 */
  readonly ranges: readonly ByteRange[];
}

/** Guest clusters with a place in the image or in its data file, counted as `qemu-img check` counts them. */
export interface ClusterStatistics {
  readonly allocated: number;
  /** not behind the guest cluster before it, or compressed */
  readonly fragmented: number;
  readonly compressed: number;
}

export interface CheckResult {
  /** the first ones, at most 100, one line each: the image is broken, or a write could break it */
  readonly corruptions: readonly string[];
  /** how many there are in all */
  readonly corruptionCount: number;
  readonly leaks: Leaks;
  /** the image was not closed cleanly, so its refcounts need not be right */
  readonly isDirty: boolean;
  /** a program has found the image broken, and marked it */
  readonly isMarkedCorrupt: boolean;
  readonly clusters: ClusterStatistics & { readonly total: number };
  /** clusters of data behind the end of the image file: they read as zeros. A power cut can leave them */
  readonly beyondEnd: number;
  /** the end of the last cluster in use, in bytes */
  readonly imageEnd: number;
}

export interface ExamineOptions {
  readonly signal?: AbortSignal | undefined;
  /** may be called any number of times */
  readonly progress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
}

/** Each function, also of a Checker, is given the file that has the format. Its bytes are hostile input. */
export interface Examiner {
  /** @throws FusetapError if the image is not of the format, or is broken */
  describe(image: Disk): Promise<Description>;
  /** What checks an image, and frees what leaks in it; default: the format has no check. */
  readonly checker?: Checker;
}

export interface Checker {
  /** Checks the image without changing it. @throws FusetapError if it cannot be checked */
  check(image: Disk, options?: ExamineOptions): Promise<CheckResult>;
  /**
   * Frees what nobody uses, and finishes what a crash left behind. Durable when it returns.
   * @throws FusetapError DENIED if anything else is wrong with the image; nothing was changed then
   */
  repairLeaks(image: Disk, options?: ExamineOptions): Promise<unknown>;
}
