/** The messages between the torture and its writer, which is a separate process: JSON, one per line. */

/** A disk that is written to. */
export interface Target {
  readonly path: string;
  /** written into each sector to identify the disk */
  readonly disk: number;
  readonly sizeBytes: number;
}

export type Request =
  /** opens the disk, which has only zeros, and writes and reads there until it gets `end` */
  | { readonly act: 'begin'; readonly target: Target }
  /** ends that, and reads everything once more if asked to */
  | { readonly act: 'end'; readonly path: string; readonly readsAll: boolean }
  /** opens the disk, whatever its content, writes some blocks, reads them and closes it */
  | { readonly act: 'probe'; readonly target: Target }
  /** compares a file with what was acknowledged on the disk */
  | { readonly act: 'compare'; readonly path: string; readonly file: string }
  /** checks that each block of a copy was written by one write */
  | { readonly act: 'inspect'; readonly target: Target }
  /** keeps the disk open until told to close it, and does nothing with it */
  | { readonly act: 'hold'; readonly path: string }
  | { readonly act: 'release'; readonly path: string };

/** Each request has a number and is answered once. */
export type Numbered = Request & { readonly number: number };

export type Line =
  | { readonly kind: 'answer'; readonly number: number; readonly error: string | null }
  /** an I/O that failed; reported if the error is a new one, and again while it continues */
  | {
      readonly kind: 'failed';
      readonly path: string;
      readonly operation: string;
      readonly code: string;
      readonly fromMs: number;
      readonly untilMs: number;
    }
  /** bytes that differ from the acknowledged ones */
  | { readonly kind: 'mismatch'; readonly path: string; readonly text: string }
  | { readonly kind: 'beat'; readonly disks: readonly Beat[] };

/** The progress of a disk; sent several times a second. */
export interface Beat {
  readonly path: string;
  /** answered I/Os since the start */
  readonly done: number;
  /** compared blocks since the start */
  readonly compared: number;
  /** the start of the oldest I/O without an answer; null if there is none */
  readonly waitsSinceMs: number | null;
  /** the longest wait of an answered I/O since the last report */
  readonly longestMs: number;
}
