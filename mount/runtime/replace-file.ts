/**
 * A small file that is replaced in one step: who reads it finds the old one whole, or the new one.
 */
import { renameSync, rmSync, writeFileSync } from 'node:fs';

/** A new version of a file that lies ready beside it. */
export interface PreparedFile {
  /** puts it in its place */
  place(): void;
  /** takes it away again */
  discard(): void;
}

/**
 * Writes the new version beside the file: what may fail for want of room fails here.
 * @param temporary the name that it has until it is placed
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

/** A directory that can be written no more keeps it: the next writer takes its place. */
function discardQuietly(discard: () => void): void {
  try {
    discard();
  } catch {
    // why the file could not be written is worth more
  }
}
