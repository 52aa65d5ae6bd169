/** Hints for commands that use an image without attaching it: they have no modes that the user could choose. */
import { FusetapError, type Holder } from '../../drivers/errors.js';
import { named } from '../../drivers/quote.js';
import { HINT_READ_ONLY } from './open-image.js';

/**
 * Replaces hints that name a mode: those of an image in use, and of one that can only be read.
 * @param unwritable the hint if the image can only be read
 */
export async function withoutModes<Result>(unwritable: string, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof FusetapError)) throw error;
    const hint = hintFor(error, unwritable);
    throw hint === error.hint ? error : withHint(error, hint);
  }
}

function hintFor({ code, hint, holders = [], path }: FusetapError, unwritable: string): string | undefined {
  if (code === 'DENIED' && hint === HINT_READ_ONLY) return unwritable;
  // a file system that does not answer is BUSY too, and its hint names no mode
  if (code !== 'BUSY' || !/\bmode (?:r|w!)/.test(hint ?? '')) return hint;
  return endUse(holders, path);
}

function endUse(holders: readonly Holder[], path = ''): string {
  const vbd = holders.find(({ bus }) => bus !== undefined);
  if (vbd?.bus !== undefined) return `fusetap detach --bus ${named(vbd.bus)} ${vbd.vdev ?? named(path)}`;
  const steps = [
    ...holders.flatMap(({ mount }) => (mount === undefined ? [] : [`umount ${named(mount)}`])),
    ...holders.flatMap(({ loop }) => (loop === undefined ? [] : [`losetup -d ${loop}`])),
  ];
  if (steps.length > 0) return steps.join('; ');
  return holders.some(({ pid }) => pid !== undefined) ? 'end that program, or wait for it' : 'end that use first';
}

function withHint(error: FusetapError, hint: string | undefined): FusetapError {
  const { code, message, errno, operation, path, offset, holders } = error;
  return new FusetapError(code, message, { hint, errno, operation, path, offset, holders, cause: error });
}
