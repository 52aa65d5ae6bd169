/**
 * How fusetap's own looks at a vbd are told from other programs that have it open. The kernel sends RELEASE some time after
 * close(2) has returned, so a vbd would be shown as open after the last look was over.
 *
 * O_ASYNC means nothing at open(2) (see its BUGS section), so no program sets it there; FUSE hands it on with OPEN.
 */

/** O_ASYNC; Node has no name for it */
const O_ASYNC = 0o20000;

/** Flags of open(2) for a look by fusetap itself: it is not counted as somebody who has the vbd open. */
export const LOOK_FLAGS = O_ASYNC;

/** Whether a handle was opened for a look by fusetap itself. */
export function isOwnLook(flags: number): boolean {
  return (flags & O_ASYNC) !== 0;
}
