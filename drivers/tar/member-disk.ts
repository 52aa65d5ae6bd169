/** The disk of a member: a range of the archive. */
import type { Disk } from '../disk.js';
import type { RawDisk } from '../driver.js';
import { FusetapError } from '../errors.js';
import { unsupported } from '../formats/faults.js';
import { quoted } from '../quote.js';
import { joinDisks } from '../segments/join-disks.js';
import type { Member } from './members.js';

/** @throws FusetapError if the bytes of the member are not in the archive as they are, or there are none */
export function memberDisk(archive: Disk, member: Member): RawDisk {
  checkMember(member);
  return joinDisks([{ disk: archive, start: member.start, size: member.size }]);
}

function checkMember({ name, kind, size }: Member): void {
  const what = `the member ${quoted(name)}`;
  if (kind === 'sparse')
    throw unsupported(`${what} is sparse: its holes are not in the archive`, 'unpack it: tar -xf IMAGE');
  if (kind === 'link') throw unsupported(`${what} is a hard link to another member`, 'name that member');
  if (kind === 'other') throw new FusetapError('USAGE', `${what} is not a file`, { hint: 'name a file' });
  if (size === 0) throw new FusetapError('USAGE', `${what} is empty`, { hint: 'name another member' });
}
