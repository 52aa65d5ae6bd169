/**
 * What a user must know who gets a ram image that is there already: who else writes to it, and whether the file has
 * changed since it was copied.
 */
import { named } from '../../drivers/quote.js';
import { readBusRecords } from '../runtime/bus-record.js';
import type { RamLink } from './links.js';
import type { RamImageWish } from './share-rules.js';
import { vbdsOf } from './users.js';

/** Remarks on an attach that joins a ram image, one line each. Joining by a name is what the user asked for. */
export function describeJoin(link: RamLink, wish: RamImageWish, runtimeDir: string): string[] {
  const { image, share } = wish;
  const { copiedMs, sameAsFileMs } = link;
  const notes: string[] = [];
  if (share === null) {
    const [user] = vbdsOf(link, readBusRecords(runtimeDir));
    const since = copiedMs === undefined ? '' : `, in use since ${timeOfDay(copiedMs)}`;
    notes.push(`shares the memory of ${user?.vdev === undefined ? '' : `${user.vdev} of `}bus ${link.bus}${since}`);
  }
  const modifiedMs = image?.identity === link.identity ? (image?.modifiedMs ?? null) : null;
  if (image !== null && modifiedMs !== null && sameAsFileMs !== undefined && modifiedMs > sameAsFileMs) {
    notes.push(
      `the copy in memory is older than ${named(image.path)}, which was changed at ${timeOfDay(modifiedMs)}; ` +
        'detach all its vbds to copy it again, or attach with --private',
    );
  }
  return notes;
}

/** Local time, as `2026-11-29 16:40:11`. */
function timeOfDay(ms: number): string {
  const shifted = new Date(ms - new Date(ms).getTimezoneOffset() * 60_000);
  return shifted.toISOString().slice(0, 19).replace('T', ' ');
}
