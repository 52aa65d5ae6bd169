/**
 * tar: the disk is the bytes of a member of a tar archive, inside the archive. An OVA is a tar archive. Threads serve it as
 * they serve a raw image.
 */
import type { Disk } from '../disk.js';
import type { Driver } from '../driver.js';
import { FusetapError } from '../errors.js';
import { unsupported } from '../formats/faults.js';
import { PROBED_BYTES, recognizeForeign } from '../formats/foreign.js';
import { readUpTo } from '../formats/read.js';
import { wrongFormat } from '../formats/wrong-format.js';
import { FORMAT_FILE, requireDisk } from '../image.js';
import { takeOptions } from '../options.js';
import { quoted } from '../quote.js';
import { joinDisks } from '../segments/join-disks.js';
import { chooseMember } from './choose.js';
import { BLOCK_BYTES, parseTarHeader } from './header.js';
import type { Member } from './members.js';

const tar = {
  name: 'tar',
  roles: FORMAT_FILE,
  check(options) {
    takeOptions('tar', options, ['member']);
    if (options.member === '')
      throw new FusetapError('USAGE', 'member is empty', { hint: 'give the name of a member' });
  },
  async open({ disks, options }) {
    const archive = requireDisk({ disks }, 'tar');
    await checkArchive(archive);
    const member = await chooseMember(archive, options.member);
    checkMember(member);
    return joinDisks([{ disk: archive, start: member.start, size: member.size }]);
  },
} satisfies Driver;

/** @throws FusetapError if it is compressed, or no archive */
async function checkArchive(archive: Disk): Promise<void> {
  const first = await readUpTo(archive, 0, BLOCK_BYTES);
  const packed = recognizeForeign(first.subarray(0, PROBED_BYTES), new Uint8Array());
  if (packed?.is.startsWith('compressed')) throw unsupported(`the archive is ${packed.is}`, packed.hint);
  try {
    if (first.length === BLOCK_BYTES && parseTarHeader(first, 0) !== null) return;
  } catch {
    // the error would tell of a checksum in what may be anything
  }
  throw await wrongFormat(archive, 'a tar archive');
}

function checkMember({ name, kind, size }: Member): void {
  const what = `the member ${quoted(name)}`;
  if (kind === 'sparse')
    throw unsupported(`${what} is sparse: its holes are not in the archive`, 'unpack it: tar -xf IMAGE');
  if (kind === 'link') throw unsupported(`${what} is a hard link to another member`, 'name that member');
  if (kind === 'other') throw new FusetapError('USAGE', `${what} is not a file`, { hint: 'name a file' });
  if (size === 0) throw new FusetapError('USAGE', `${what} is empty`, { hint: 'name another member' });
}

export default tar;
