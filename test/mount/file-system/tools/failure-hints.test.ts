import t from 'tap';
import { type Content, NOTHING_FOUND } from '../../../../mount/file-system/tools/blkid.js';
import { type Failure, mountHint, whyNoFileSystem } from '../../../../mount/file-system/tools/failure-hints.js';

const content = (type: string, isFileSystem = true): Content => ({ ...NOTHING_FOUND, type, isFileSystem });

/** What the kernel or a program said about a file system of that type. */
const failure = (type: string | null, message: string, more: Partial<Failure> = {}): Failure => ({
  content: type === null ? NOTHING_FOUND : content(type),
  ...{ readOnly: false, message, byKernel: true, ...more },
});

t.test('content that is not a file system', async (t) => {
  const expected: [type: string, hint: RegExp][] = [
    ['crypto_LUKS', /cryptsetup open/],
    ['BitLocker', /bitlk/],
    ['LVM2_member', /vgchange/],
    ['linux_raid_member', /mdadm/],
    ['isw_raid_member', /mdadm/],
    ['zfs_member', /zpool/],
    ['swap', /swap space/],
    ['swsuspend', /swap space/],
  ];
  for (const [type, hint] of expected) {
    t.match(whyNoFileSystem(content(type, false)), hint, type);
    t.match(mountHint(failure(type, 'wrong fs type')), hint, type);
  }
  t.equal(whyNoFileSystem(content('ext4')), undefined);
});

t.test('a mount that failed', async (t) => {
  const readOnly = true;
  t.match(mountHint(failure('ext4', 'cannot mount /dev/loop0 read-only', { readOnly })), /-o noload/);
  const byProgram = { readOnly, byKernel: false };
  t.match(mountHint(failure('ext4', 'Journal needs recovery', byProgram)), /-o norecovery/);
  t.match(mountHint(failure('xfs', 'cannot mount /dev/loop0 read-only', { readOnly })), /-o norecovery/);
  t.match(mountHint(failure('xfs', 'wrong fs type, bad option')), /nouuid/);
  t.match(mountHint(failure('ntfs', 'The disk contains an unclean file system')), /Windows/);
  t.match(mountHint(failure('ext4', 'fuse: mountpoint is not empty', { byKernel: false })), /empty directory/);
  t.match(mountHint(failure(null, 'wrong fs type')), /--type, or a partition with --partition/);
  t.match(mountHint(failure('ext4', 'bad superblock')), /^dmesg/);
  t.equal(mountHint(failure('ext4', 'bad option', { byKernel: false })), undefined);
});
