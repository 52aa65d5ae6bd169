/** Disks that are one run of a file. */
import type { Segment, Window } from '../driver.js';

/** A disk that is one window. */
export function oneSegment(window: Window): readonly Segment[] {
  return [{ ...window, offset: 0 }];
}

/** The window of a disk that is one run of a file; undefined if it is anything else. */
export function windowOf({ segments }: { readonly segments?: readonly Segment[] | undefined }): Window | undefined {
  const [first, second] = segments ?? [];
  if (first === undefined || second !== undefined) return undefined;
  const { offset: _, ...window } = first;
  return window;
}
