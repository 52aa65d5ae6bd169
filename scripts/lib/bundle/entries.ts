/** The programs of the package and its entries for other packages: modules that are started or imported by their path. */
export const ENTRIES: readonly string[] = [
  'cli/main',
  'cli/tap-ctl/main',
  'cli/mount-helper/mount',
  'cli/mount-helper/umount',
  'mount/index',
  'test/conformance/index',
  'mount/keeper/main',
  'mount/server/main',
  // by its path, because servers of an earlier version load it too
  'mount/server/orphan',
  'mount/fuse/thread/thread',
  'mount/export/main',
  'drivers/rbd/cluster-worker',
];
