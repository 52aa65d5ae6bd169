/**
 * Marks the opens of a vbd by fusetap itself (its own probes), so that they do not count as opens by a user. They must
 * not count: the kernel sends RELEASE some time after close(2) has returned, so a vbd would look open after the last
 * probe.
 *
 * The mark is O_ASYNC. It has no effect at open(2) (see its BUGS section), so no program sets it there, and FUSE passes
 * it on with OPEN.
 */

/** O_ASYNC; Node has no constant for it */
const O_ASYNC = 0o20000;

/** Flags of open(2) for a probe by fusetap itself, which does not count as an open of the vbd. */
export const PROBE_FLAGS = O_ASYNC;

/** Whether a handle was opened for a probe by fusetap itself. */
export function isOwnProbe(flags: number): boolean {
  return (flags & O_ASYNC) !== 0;
}
