/** Checks an image that no bus serves, and frees what leaks in it. */
import { FusetapError } from '../../drivers/errors.js';
import type { CheckResult, ExamineOptions } from '../../drivers/examining/examiner.js';
import { examinerOf } from '../../drivers/examining/formats.js';
import { named } from '../../drivers/quote.js';
import { type ImageWish, openOffline, sayingPath } from './offline-image.js';

/** the operation of the error that says that a format has no check */
export const NO_CHECK = 'no check';

export interface CheckedImage {
  readonly image: string;
  readonly format: string;
  /** of the image as it is now */
  readonly result: CheckResult;
  /** leaked clusters that were freed */
  readonly freedClusters: number;
  /** remarks for the user, one line each */
  readonly notes: readonly string[];
}

export interface CheckOptions extends ExamineOptions {
  /** free leaked clusters, if nothing else is wrong; an image that was not closed cleanly is repaired as a whole */
  readonly repairsLeaks: boolean;
}

/**
 * @throws FusetapError BUSY if the image is in use for writing, or for a repair at all; UNSUPPORTED with operation NO_CHECK
 *   if the format has no check
 */
export async function checkImageFile(wish: ImageWish, options: CheckOptions): Promise<CheckedImage> {
  const opened = await openOffline(wish, { mode: options.repairsLeaks ? 'w' : 'r' });
  try {
    const { format, image, file } = opened;
    const checker = (await examinerOf(format))?.checker;
    if (checker === undefined) {
      throw new FusetapError('UNSUPPORTED', `${named(file.path)}: the format ${format} has no check`, {
        operation: NO_CHECK,
        path: file.path,
      });
    }
    const notes: string[] = [];
    const check = (): Promise<CheckResult> => sayingPath(file, () => checker.check(image, options));
    const first = await check();
    if (!options.repairsLeaks) return { image: file.path, format, result: first, freedClusters: 0, notes };
    await checker.repairLeaks(image, options).catch((error: unknown) => notes.push(whyNotRepaired(error)));
    const result = await check();
    const freedClusters = first.leaks.clusters - result.leaks.clusters;
    return { image: file.path, format, result, freedClusters, notes };
  } finally {
    await opened.close();
  }
}

/** The remark that nothing was repaired, because the image is damaged; throws every other error. */
function whyNotRepaired(error: unknown): string {
  if (!(error instanceof FusetapError) || error.code !== 'DENIED') throw error;
  return `nothing was repaired: ${error.message}`;
}
