/** Rules for the files of one disk, besides those for each file (claim-image.ts). */
import { FusetapError } from '../../drivers/errors.js';
import type { FilePlan } from '../../drivers/graph/plan.js';
import { named } from '../../drivers/quote.js';
import type { Mode } from './mode.js';
import { identityOf, type OpenedImage } from './open-image.js';

/**
 * Two writers of a raw image change its bytes; two writers of tables would each destroy what the other has allocated.
 * @throws FusetapError USAGE for mode w! of a file with tables
 */
export function refuseSecondWriter(path: string, { grows = false }: Pick<FilePlan, 'grows'>, mode: Mode): void {
  if (!grows || mode !== 'w!') return;
  throw new FusetapError('USAGE', `${named(path)} can have only one writer, because its format has tables`, {
    path,
    hint: 'attach it with mode w',
  });
}

/**
 * Two places of a disk must not be the same bytes if they are written, whatever names they have.
 * @throws FusetapError USAGE if a file is open already, and one of both is written
 */
export function refuseTwice(
  image: OpenedImage,
  mode: Mode,
  others: Iterable<{ readonly image: OpenedImage; readonly mode: Mode }>,
): void {
  for (const other of others) {
    if (identityOf(other.image) !== identityOf(image) || (mode === 'r' && other.mode === 'r')) continue;
    const hint = 'attach it with mode r, or repair the image';
    throw new FusetapError('USAGE', `${named(image.path)} is in two places of the disk`, { path: image.path, hint });
  }
}
