/**
 * I/O that the kernel does without the server (passthrough) cannot be paused. A vbd with passthrough can be paused only
 * while it is not open; during the pause opens wait.
 */
import { FusetapError } from '../../drivers/errors.js';

/** @param free resolves when the vbd is not open. @throws FusetapError BUSY with the holders and the reason */
export async function freeToPause(free: () => Promise<void>): Promise<void> {
  await free().catch((error: unknown) => {
    if (!(error instanceof FusetapError) || error.code !== 'BUSY') throw error;
    throw new FusetapError('BUSY', `${error.message}; it uses passthrough, so it cannot be paused while it is open`, {
      hint: 'close it there, or attach it with --passthrough off',
      holders: error.holders,
    });
  });
}
