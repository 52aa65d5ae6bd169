/**
 * Replaces a small file in one step: readers see either the whole old file or the whole new file.
 */
import { renameSync, rmSync, writeFileSync } from 'node:fs';

/** A new version of a file, written under a temporary name beside it. */
export interface PreparedFile {
  /** replaces the file */
  place(): void;
  /** removes the new version */
  discard(): void;
}

/**
 * Writes the new version beside the file. An error for lack of space happens here, not in `place`.
 * @param temporary the name of the new version until it is placed
 */
export function prepareFile(path: string, text: string, temporary = `${path}.new`): PreparedFile {
  const discard = (): void => rmSync(temporary, { force: true });
  try {
    writeFileSync(temporary, text, { mode: 0o600 });
  } catch (error) {
    discardQuietly(discard);
    throw error;
  }
  return { place: () => renameSync(temporary, path), discard };
}

/** Replaces the file. @param temporary see prepareFile */
export function replaceFile(path: string, text: string, temporary?: string): void {
  const prepared = prepareFile(path, text, temporary);
  try {
    prepared.place();
  } catch (error) {
    discardQuietly(prepared.discard);
    throw error;
  }
}

/** If the directory cannot be written, the temporary file stays; the next writer overwrites it. */
function discardQuietly(discard: () => void): void {
  try {
    discard();
  } catch {
    // ignore this error: the error of the write is more important
  }
}
