/**
 * Whether anybody else could put another directory in the place of ours: whoever can write a directory above it can,
 * unless that has the sticky bit.
 */
import { type Stats, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { FusetapError } from '../../drivers/errors.js';
import { isInUserNamespace } from '../../system/proc.js';

/** in a user namespace, what belongs to a user outside of it, as `/` */
const UNMAPPED = 65534;

/**
 * @param path of the directory that is to be made
 * @param nearest the real path of the directory above it that is there
 * @throws FusetapError DENIED, naming the directory above that others can write
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
  // a user's own group has no other members, as distributions make it
  if (![0, process.getegid?.() ?? 0].includes(stats.gid)) return `${mode}, and its group ${stats.gid}`;
  return (await isOpenByAcl(path)) ? 'its ACL lets others write' : null;
}

/** The bits of the group are the mask where there is an ACL: it says whom they are for. */
async function isOpenByAcl(path: string): Promise<boolean> {
  const { readExtendedAttribute } = await import('../../system/libc.js');
  const acl = readExtendedAttribute(path, 'system.posix_acl_access');
  return acl !== null && aclLetsOthersWrite(acl);
}

const WRITE = 2;
/** of linux/posix_acl_xattr.h: entries of 8 bytes behind 4 bytes of a version */
const [USER, GROUP] = [0x02, 0x08];

/** Whether an ACL, as the kernel stores it, lets a named user or group write. */
export function aclLetsOthersWrite(acl: Buffer): boolean {
  for (let at = 4; at + 8 <= acl.length; at += 8) {
    const [tag, permissions] = [acl.readUInt16LE(at), acl.readUInt16LE(at + 2)];
    if ((tag === USER || tag === GROUP) && (permissions & WRITE) !== 0) return true;
  }
  return false;
}
