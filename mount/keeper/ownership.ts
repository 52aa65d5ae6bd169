/**
 * Other users on a bus: whether they can reach its directory, and who owns its files.
 */
import { statSync } from 'node:fs';
import { dirname } from 'node:path';
import { FusetapError } from '../../drivers/errors.js';
import type { AttachRequest } from '../control/interface.js';

/** permission to search a directory, for its group and for others */
const OTHERS_SEARCH = 0o011;

/**
 * Refuses a bus for other users below a directory that only its owner may search: nobody else could reach it.
 * @param path of the bus; its own mode does not matter, because the mount covers it
 * @throws FusetapError DENIED
 */
export function refuseHidden(path: string): void {
  for (let at = dirname(path); ; at = dirname(at)) {
    const mode = statSync(at).mode & 0o777;
    if ((mode & OTHERS_SEARCH) === 0) {
      throw new FusetapError(
        'DENIED',
        `--allow-other would have no effect: ${at} has mode ${mode.toString(8).padStart(4, '0')}`,
        { hint: 'choose a directory that other users can reach, with --bus DIR', path: at },
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

/** The user that the bus runs as. */
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
 * The owner of the files of a vbd.
 * @throws FusetapError DENIED if chown(2) would not allow the user to set this owner
 */
export function ownerOf(request: Pick<AttachRequest, 'uid' | 'gid' | 'fileMode'>, self: OwnIdentity): FileOwner {
  const { uid = self.uid, gid = self.gid, fileMode } = request;
  if (self.uid !== 0 && uid !== self.uid) throw notYours('--uid', uid, `your own: ${self.uid}`);
  if (self.uid !== 0 && gid !== self.gid && !self.groups.includes(gid)) {
    throw notYours('--gid', gid, `one of your groups: ${[...new Set([self.gid, ...self.groups])].join(', ')}`);
  }
  return { uid, gid, mode: fileMode === undefined ? DEFAULT_MODE : Number.parseInt(fileMode, 8) };
}

function notYours(option: string, id: number, choice: string): FusetapError {
  return new FusetapError('DENIED', `${option} ${id}: only root can give a vbd to another user`, {
    hint: `use ${choice}`,
  });
}
