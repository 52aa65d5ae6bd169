/**
 * Reads the attributes of the file below a vbd without waiting for a file system that may hang. Local file systems
 * answer fstat(2) from memory. For all others the last answer is returned, and a newer one is requested in the
 * background.
 */
import { fstat, fstatSync, type Stats } from 'node:fs';
import type { Window } from '../../drivers/driver.js';
import { answersFromMemory, fileSystemOf } from '../../system/proc.js';

interface Below {
  readonly isAtOnce: boolean;
  /** null until the first answer */
  stats: Stats | null;
  /** a request is under way; there is never more than one */
  isAsked: boolean;
}

const known = new WeakMap<Window, Below>();

/** The result of fstat(2) for the file of a window; null if it is not known. */
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

/** The same, but null also where the file system may hang: then nothing is asked, and no thread is taken. */
export function statAtOnce(window: Window): Stats | null {
  if (window.kind === 'block') return null;
  return (known.get(window) ?? begin(window)).isAtOnce ? fstatSync(window.fd) : null;
}

function begin(window: Window): Below {
  const isAtOnce = window.kind === 'memory' || answersFromMemory(fileSystemOf(window.fd));
  const below = { isAtOnce, stats: null, isAsked: false };
  known.set(window, below);
  return below;
}
