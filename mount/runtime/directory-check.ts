/**
 * Checks that no other user can replace our directory. A user who can write to a directory above it can, unless that
 * directory has the sticky bit.
 */
import { type Stats, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { FusetapError } from '../../drivers/errors.js';
import { isInUserNamespace } from '../../system/proc.js';

/** in a user namespace, the uid of files of users outside of it, as `/` */
const UNMAPPED = 65534;

/**
 * @param path of the directory to make
 * @param nearest the real path of the nearest existing directory above it
 * @throws FusetapError DENIED with the directory above that others can replace
 */
export async function refuseForeignAncestors(path: string, nearest: string, uid: number): Promise<void> {
  for (let ancestor = nearest; ; ancestor = dirname(ancestor)) {
    const why = await whyForeign(ancestor, statSync(ancestor), uid);
    if (why !== null) {
      throw new FusetapError('DENIED', `cannot use the directory ${path}: others can replace ${ancestor}: ${why}`, {
        hint: 'set FUSETAP_RUNTIME_DIR to a directory that only you can write',
        path,
      });
    }
    if (ancestor === '/') return;
  }
}

async function whyForeign(path: string, stats: Stats, uid: number): Promise<string | null> {
  const isUnmapped = stats.uid === UNMAPPED && isInUserNamespace();
  if (![0, uid].includes(stats.uid) && !isUnmapped) return `it belongs to uid ${stats.uid}`;
  const isSticky = (stats.mode & 0o1000) !== 0;
  if (isSticky || (stats.mode & 0o022) === 0) return null;
  const mode = `its mode is ${(stats.mode & 0o7777).toString(8)}`;
  if ((stats.mode & 0o002) !== 0) return mode;
  // assume that a user's own group has no other members, as in most distributions
  if (![0, process.getegid?.() ?? 0].includes(stats.gid)) return `${mode}, and its group ${stats.gid}`;
  return (await isOpenByAcl(path)) ? 'its ACL lets others write' : null;
}

/** If there is an ACL, the group bits of the mode are its mask, so read the ACL: does it let others write? */
async function isOpenByAcl(path: string): Promise<boolean> {
  const { readExtendedAttribute } = await import('../../system/libc.js');
  const acl = readExtendedAttribute(path, 'system.posix_acl_access');
  return acl !== null && aclLetsOthersWrite(acl);
}

const WRITE = 2;
/** linux/posix_acl_xattr.h: a version of 4 bytes, then entries of 8 bytes */
const [USER, GROUP] = [0x02, 0x08];

/** Whether an ACL, as the kernel stores it, lets a named user or group write. */
export function aclLetsOthersWrite(acl: Buffer): boolean {
  for (let at = 4; at + 8 <= acl.length; at += 8) {
    const [tag, permissions] = [acl.readUInt16LE(at), acl.readUInt16LE(at + 2)];
    if ((tag === USER || tag === GROUP) && (permissions & WRITE) !== 0) return true;
  }
  return false;
}
