/**
 * What the kernel does by itself (passthrough) cannot be held: a vbd of that kind is held when nobody has it open, and then
 * its opens wait.
 */
import { FusetapError } from '../../drivers/errors.js';

/** @param free resolves when nobody holds the vbd. @throws FusetapError BUSY with the holders, saying why that matters */
export async function freeToHold(free: () => Promise<void>): Promise<void> {
  await free().catch((error: unknown) => {
    if (!(error instanceof FusetapError) || error.code !== 'BUSY') throw error;
    throw new FusetapError('BUSY', `${error.message}; it is passed through, so its I/O cannot be held`, {
      hint: 'close it there, or attach it with --passthrough off',
      holders: error.holders,
    });
  });
}
