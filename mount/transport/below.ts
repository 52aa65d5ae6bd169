/**
 * What a file system says of the file below a vbd, without ever waiting for one that may hang: local file systems answer
 * fstat(2) from memory; of all others the last answer is given, and a newer one is asked for in the background.
 */
import { fstat, fstatSync, type Stats } from 'node:fs';
import type { Window } from '../../drivers/driver.js';
import { answersFromMemory, fileSystemOf } from '../../system/proc.js';

interface Below {
  readonly isAtOnce: boolean;
  /** null as long as nothing was answered */
  stats: Stats | null;
  /** a question is under way; never a second one beside it */
  isAsked: boolean;
}

const known = new WeakMap<Window, Below>();

/** What fstat(2) tells of the file of a window; null if that is not known. */
export function statBelow(window: Window): Stats | null {
  if (window.kind === 'block') return null;
  const below = known.get(window) ?? begin(window);
  if (below.isAtOnce) return fstatSync(window.fd);
  if (!below.isAsked) {
    below.isAsked = true;
    fstat(window.fd, (error, stats) => {
      below.isAsked = false;
      if (error === null) below.stats = stats;
    });
  }
  return below.stats;
}

function begin(window: Window): Below {
  const isAtOnce = window.kind === 'memory' || answersFromMemory(fileSystemOf(window.fd));
  const below = { isAtOnce, stats: null, isAsked: false };
  known.set(window, below);
  return below;
}
