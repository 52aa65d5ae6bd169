/**
 * I/O that the kernel does without the server (passthrough) cannot be paused. A vbd of that kind can be paused when nobody has
 * it open; then its opens wait.
 */
import { FusetapError } from '../../drivers/errors.js';

/** @param free resolves when nobody has the vbd open. @throws FusetapError BUSY with the holders, saying why that matters */
export async function freeToPause(free: () => Promise<void>): Promise<void> {
  await free().catch((error: unknown) => {
    if (!(error instanceof FusetapError) || error.code !== 'BUSY') throw error;
    throw new FusetapError('BUSY', `${error.message}; it is passed through, so it cannot be paused`, {
      hint: 'close it there, or attach it with --passthrough off',
      holders: error.holders,
    });
  });
}
