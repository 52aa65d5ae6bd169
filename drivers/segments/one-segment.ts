/** Disks that are one run of a file. */
import type { Segment, Window } from '../driver.js';

/** A disk that is one window. */
export function oneSegment(window: Window): readonly Segment[] {
  return [{ ...window, offset: 0 }];
}

const windows = new WeakMap<Segment, Window>();

/**
 * The window of a disk that is one run of a file; undefined if it is anything else. It is the same object each time, so
 * what is known of a window can be kept by it.
 */
export function windowOf({ segments }: { readonly segments?: readonly Segment[] | undefined }): Window | undefined {
  const [first, second] = segments ?? [];
  if (first === undefined || second !== undefined) return undefined;
  const known = windows.get(first);
  if (known !== undefined) return known;
  const { offset: _, ...window } = first;
  windows.set(first, window);
  return window;
}
