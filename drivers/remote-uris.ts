/** The URIs that name disks on a network: which driver reads them, and their canonical form. */
import { httpUris } from './https/uri.js';
import { nbdUris } from './nbd/uri.js';
import { rbdUris } from './rbd/uri.js';

/** The URIs of a driver. */
export interface RemoteUris {
  readonly driver: string;
  /** whether a text can only be one of them */
  matches(text: string): boolean;
  /** @param resolve makes the paths of files in it absolute @throws FusetapError USAGE */
  canonical(text: string, resolve: (path: string) => string): string;
  /** what to do in place of a format over such a disk, for a hint */
  readonly instead: string;
}

const ALL: readonly RemoteUris[] = [nbdUris, httpUris, rbdUris];

/** The driver of a text that can only be a URI of a disk on a network; null for all others. */
export function driverOfUri(text: string): string | null {
  return ALL.find(({ matches }) => matches(text))?.driver ?? null;
}

/** What to do in place of a format over such a disk. */
export function insteadOfFormat(text: string): string {
  return ALL.find(({ matches }) => matches(text))?.instead ?? '';
}

/**
 * The canonical form of such a URI; a text that is none is returned as it is.
 * @param resolve makes the paths of files in it absolute
 * @throws FusetapError USAGE
 */
export function canonicalUri(text: string, resolve: (path: string) => string = (path) => path): string {
  return ALL.find(({ matches }) => matches(text))?.canonical(text, resolve) ?? text;
}
