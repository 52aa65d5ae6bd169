/**
 * Other users on a bus: whether they can come to its directory at all, and whose the files in it are.
 */
import { statSync } from 'node:fs';
import { dirname } from 'node:path';
import { FusetapError } from '../../drivers/errors.js';
import type { AttachRequest } from '../control/interface.js';

/** what may search a directory: its group, all others */
const OTHERS_SEARCH = 0o011;

/**
 * Refuses a bus for others where no other can come: below a directory that only its owner may search.
 * @param path of the bus; its own mode does not matter, the mount covers it
 * @throws FusetapError DENIED
 */
export function refuseHidden(path: string): void {
  for (let at = dirname(path); ; at = dirname(at)) {
    const mode = statSync(at).mode & 0o777;
    if ((mode & OTHERS_SEARCH) === 0) {
      throw new FusetapError(
        'DENIED',
        `--allow-other would let nobody in: ${at} has mode ${mode.toString(8).padStart(4, '0')}`,
        { hint: 'put the bus where others can come, with --bus DIR', path: at },
      );
    }
    if (at === '/') return;
  }
}

export interface FileOwner {
  readonly uid: number;
  readonly gid: number;
  readonly mode: number;
}

/** Who runs the bus. */
export interface OwnIdentity {
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
}

export function ownIdentity(): OwnIdentity {
  return { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0, groups: process.getgroups?.() ?? [] };
}

const DEFAULT_MODE = 0o600;

/**
 * Whose the files of a vbd are.
 * @throws FusetapError DENIED where the user gives away what chown(2) would not let him give away
 */
export function ownerOf(request: Pick<AttachRequest, 'uid' | 'gid' | 'fileMode'>, self: OwnIdentity): FileOwner {
  const { uid = self.uid, gid = self.gid, fileMode } = request;
  if (self.uid !== 0 && uid !== self.uid) throw notYours('--uid', uid, `your own, ${self.uid}`);
  if (self.uid !== 0 && gid !== self.gid && !self.groups.includes(gid)) {
    throw notYours('--gid', gid, `a group of yours: ${[...new Set([self.gid, ...self.groups])].join(', ')}`);
  }
  return { uid, gid, mode: fileMode === undefined ? DEFAULT_MODE : Number.parseInt(fileMode, 8) };
}

function notYours(option: string, id: number, choice: string): FusetapError {
  return new FusetapError('DENIED', `${option} ${id}: only root may give a vbd to somebody else`, {
    hint: `give ${choice}`,
  });
}
