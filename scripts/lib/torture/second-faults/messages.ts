/** What the torture and its writer, which is a process of its own, say to each other: JSON, one line each. */

/** A disk that is written to. */
export interface Target {
  readonly path: string;
  /** told apart in each sector */
  readonly disk: number;
  readonly sizeBytes: number;
}

export type Request =
  /** opens the disk, which has zeros, and writes and reads there until told to end */
  | { readonly act: 'begin'; readonly target: Target }
  /** ends what was begun, and reads all once more where it is asked for */
  | { readonly act: 'end'; readonly path: string; readonly readsAll: boolean }
  /** opens the disk, whatever it has, writes some blocks, reads them and closes it */
  | { readonly act: 'probe'; readonly target: Target }
  /** compares a file with what was acknowledged on the disk */
  | { readonly act: 'compare'; readonly path: string; readonly file: string }
  /** looks whether each block of a copy was written by one write */
  | { readonly act: 'inspect'; readonly target: Target }
  /** keeps the disk open until told otherwise, does nothing with it */
  | { readonly act: 'hold'; readonly path: string }
  | { readonly act: 'release'; readonly path: string };

/** With the number of the request, each is answered once. */
export type Numbered = Request & { readonly number: number };

export type Line =
  | { readonly kind: 'answer'; readonly number: number; readonly error: string | null }
  /** an I/O that failed; told when it is another than before, or goes on */
  | {
      readonly kind: 'failed';
      readonly path: string;
      readonly operation: string;
      readonly code: string;
      readonly fromMs: number;
      readonly untilMs: number;
    }
  /** bytes that are not what was acknowledged */
  | { readonly kind: 'mismatch'; readonly path: string; readonly text: string }
  | { readonly kind: 'beat'; readonly disks: readonly Beat[] };

/** How a disk goes on; several times a second. */
export interface Beat {
  readonly path: string;
  /** I/O that was answered, from the begin */
  readonly done: number;
  /** blocks that were compared, from the begin */
  readonly compared: number;
  /** since when the oldest I/O that has no answer waits; null: none does */
  readonly waitsSinceMs: number | null;
  /** the longest that an answered one has waited since the last beat */
  readonly longestMs: number;
}
