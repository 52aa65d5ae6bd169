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
import { chooseMember } from './choose.js';
import { BLOCK_BYTES, beginsArchive } from './header.js';
import { memberDisk } from './member-disk.js';

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
    return memberDisk(archive, await chooseMember(archive, options.member));
  },
} satisfies Driver;

/** @throws FusetapError if it is compressed, or no archive */
async function checkArchive(archive: Disk): Promise<void> {
  const first = await readUpTo(archive, 0, BLOCK_BYTES);
  const packed = recognizeForeign(first.subarray(0, PROBED_BYTES), new Uint8Array());
  if (packed?.is.startsWith('compressed')) throw unsupported(`the archive is ${packed.is}`, packed.hint);
  if (!beginsArchive(first)) throw await wrongFormat(archive, 'a tar archive');
}

export default tar;
