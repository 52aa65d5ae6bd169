/** Unmounts a directory, with the program that may. */
import type { Mount } from '../../../system/proc.js';
import { findFusermount } from '../../../system/programs.js';
import { runTool, type TellWait } from './run-tool.js';

/** @throws FusetapError BUSY if it is in use; it is mounted then */
export async function unmountDirectory(
  { mountpoint, type }: Pick<Mount, 'mountpoint' | 'type'>,
  waits?: TellWait,
): Promise<void> {
  const what = `cannot unmount ${mountpoint}`;
  const hint = `fuser -vm ${mountpoint} shows who uses it`;
  const helper = type.startsWith('fuse') && process.geteuid?.() !== 0 ? findFusermount() : null;
  if (helper !== null) await runTool(helper, ['-u', mountpoint], what, { hint, waits });
  // without helpers (-i): umount(8) would call umount.fusetap, which calls this
  else await runTool('umount', ['-i', mountpoint], what, { hint, waits });
}
