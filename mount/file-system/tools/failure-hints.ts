/** How to go on if a file system cannot be mounted, by the kind of failure. */
import type { Content } from './blkid.js';

/** What to use instead for content that is not a file system, by the type that blkid(8) gives it. */
const INSTEAD: readonly [type: RegExp, hint: string][] = [
  [
    /^crypto_LUKS$/,
    'it is encrypted (LUKS): fusetap attach it, then cryptsetup open VBD NAME, and mount /dev/mapper/NAME',
  ],
  [/^BitLocker$/, 'it is encrypted: fusetap attach it, then cryptsetup open --type bitlk VBD NAME'],
  [
    /^LVM2_member$/,
    'it is a volume of LVM: fusetap attach it, then losetup --find --show VBD, and vgchange --activate y',
  ],
  [
    /_raid_member$/,
    'it is a member of a RAID: fusetap attach it, then losetup --find --show VBD, and mdadm --assemble',
  ],
  [/^zfs_member$/, 'it is a member of a ZFS pool: fusetap attach it, then zpool import -d DIRECTORY-OF-THE-VBD'],
  [/^sw(ap|suspend)$/, 'it is swap space, which has no files'],
];

/** The hint for content that is not a file system; undefined if nothing is known. */
export function whyNoFileSystem({ type }: Content): string | undefined {
  return INSTEAD.find(([pattern]) => type !== null && pattern.test(type))?.[1];
}

/** A mount that failed. */
export interface Failure {
  readonly content: Content;
  readonly readOnly: boolean;
  /** what the program said */
  readonly message: string;
  /** the kernel mounts it, and writes its reasons to its log */
  readonly byKernel: boolean;
}

/** The hint for a mount that failed; undefined if nothing is known. */
export function mountHint({ content, readOnly, message, byKernel }: Failure): string | undefined {
  const type = content.type ?? '';
  const instead = whyNoFileSystem(content);
  if (instead !== undefined) return instead;
  if (/not empty/i.test(message)) return 'choose an empty directory';
  const isDirty = /journal|recover|unclean|dirty|hibernat|read-only/i.test(message);
  if (type === 'ntfs' && isDirty) {
    return 'Windows did not shut down: mount it with --read-only, or repair it with ntfsfix';
  }
  const option = /^ext[234]$/.test(type) ? 'noload' : /^(xfs|btrfs)$/.test(type) ? 'norecovery' : null;
  if (isDirty && readOnly && option !== null) {
    return `its journal must be replayed: mount it once without --read-only, or use -o ${byKernel ? option : 'norecovery'}`;
  }
  if (!byKernel) return undefined;
  const log = 'dmesg shows the messages of the kernel';
  if (type === 'xfs') return `if a copy of it is mounted already, use -o nouuid; ${log}`;
  return type === '' ? `give the file system with --type, or a partition with --partition N; ${log}` : log;
}
