/** An OVA is a tar archive with a VMDK in it. The VMDK is used where it lies, so threads serve it as any other. */
import { type Disk, frontDisk } from '../disk.js';
import { readUpTo } from '../formats/read.js';
import { chooseMember, type Looks } from '../tar/choose.js';
import { BLOCK_BYTES, beginsArchive } from '../tar/header.js';
import { memberDisk } from '../tar/member-disk.js';

const VMDK: Looks = {
  name: /\.vmdk$/i,
  is: 'the name of a VMDK',
  option: 'vmdk:tar:IMAGE and --option file/member=NAME',
};

/**
 * The image in a file: the file, or the only member of an archive with the name of a VMDK.
 * @throws FusetapError USAGE if an archive has none, or several
 */
export async function imageIn(file: Disk): Promise<Disk> {
  if (!beginsArchive(await readUpTo(file, 0, BLOCK_BYTES))) return file;
  return frontDisk(memberDisk(file, await chooseMember(file, undefined, VMDK)), { readOnly: true });
}
