/** A disk to attach, and the place where it was named, for messages: an argument, a line of a file, an entry of JSON. */
import { FusetapError } from '../drivers/errors.js';
import type { Wanted } from './attach-request.js';

export interface ListedDisk extends Wanted {
  /** `domain.cfg:3`, `disks.json: entry 2` or a SPEC; null if there is only one disk */
  readonly where: string | null;
}

/** Runs `work`, and adds the place to its errors. */
export function at<Result>(where: string | null, work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    throw placed(where, error);
  }
}

/** The error of a disk, with its place in front; code and details stay. */
export function placed(where: string | null, error: unknown): unknown {
  if (where === null || !(error instanceof FusetapError)) return error;
  return new FusetapError(error.code, atPlace(where, error.message), { ...error.toJSON(), cause: error });
}

/** A remark with its place in front. */
export function atPlace(where: string | null, text: string): string {
  return where === null ? text : `${where}: ${text}`;
}
