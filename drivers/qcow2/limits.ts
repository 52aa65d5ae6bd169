/** What depends on the size of an image. */

/** with clusters of 64 KiB: 512 GiB of data, whose tables have 64 MiB */
const MOST_CHECKED_TABLES = 1024;

/**
 * Whether the refcounts of an image with so many L2 tables are checked at each attach with mode w: then free clusters can be
 * used again. Larger images are checked only if they were not closed cleanly, and grow at their end.
 */
export function mayReuseFree(l2Tables: number): boolean {
  return l2Tables <= MOST_CHECKED_TABLES;
}
