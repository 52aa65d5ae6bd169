/** Chooses the member of an archive that is the disk: by its name, or the only one that looks like a disk image. */
import type { Disk } from '../disk.js';
import { FusetapError } from '../errors.js';
import { quoted, quotedList } from '../quote.js';
import { type Member, visitMembers } from './members.js';

/** Which members look like the disk, for a user who names none. */
export interface Looks {
  readonly name: RegExp;
  /** what such a member has */
  readonly is: string;
  /** how the user names a member */
  readonly option: string;
}

const DISK_IMAGE: Looks = {
  name: /\.(?:vmdk|img|raw|vhd|vdi|qcow2|iso)$/i,
  is: 'the name of a disk image',
  option: '--option member=NAME',
};
/** the most members that an error lists */
const MOST_LISTED = 10;

/**
 * @param name as in the archive, with or without `./`; undefined: the only member that looks like a disk image
 * @throws FusetapError NOT_FOUND no such member; USAGE more than one; FAILED the archive is damaged
 */
export async function chooseMember(
  archive: Disk,
  name: string | undefined,
  looks: Looks = DISK_IMAGE,
): Promise<Member> {
  const wanted = name === undefined ? null : plain(name);
  const images = new List();
  const files = new List();
  const chosen = new List();
  await visitMembers(archive, (member) => {
    const isImage = member.kind !== 'other' && looks.name.test(member.name);
    files.add(member.kind !== 'other', member);
    images.add(isImage, member);
    chosen.add(wanted === null ? isImage : plain(member.name) === wanted, member);
  });
  const [only] = chosen.first;
  if (only !== undefined && chosen.count === 1) return only;
  const hint = (images.count > 0 ? images : files).hint(looks);
  if (wanted !== null && only !== undefined) {
    throw new FusetapError('USAGE', `the archive has ${quoted(wanted)} ${chosen.count} times`, { hint: 'unpack it' });
  }
  if (wanted !== null) throw new FusetapError('NOT_FOUND', `the archive has no ${quoted(wanted)}`, { hint });
  const found = images.count === 0 ? 'no member' : `${images.count} members`;
  throw new FusetapError('USAGE', `the archive has ${found} with ${looks.is}`, { hint });
}

function plain(name: string): string {
  return name.replace(/^(?:\.\/+)+/, '');
}

/** The first of many members, and their count. */
class List {
  readonly first: Member[] = [];
  count = 0;

  add(isOne: boolean, member: Member): void {
    if (!isOne) return;
    this.count += 1;
    if (this.first.length < MOST_LISTED) this.first.push(member);
  }

  hint({ option }: Looks): string {
    if (this.count === 0) return 'it has no files';
    const names = this.first.map(({ name }) => name);
    return `name one with ${option}: ${quotedList(names, this.count)}`;
  }
}
