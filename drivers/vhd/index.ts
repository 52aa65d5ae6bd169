/**
 * vhd: the disk in a fixed VHD. Its bytes are the image without the footer, so threads serve them as they serve a raw
 * image, and nothing is written over the footer.
 */
import type { Driver } from '../driver.js';
import { FusetapError } from '../errors.js';
import { FORMAT_FILE, requireDisk } from '../image.js';
import { takeOptions } from '../options.js';
import { joinDisks } from '../segments/join-disks.js';
import { readFixedVhd } from './footer.js';

const vhd = {
  name: 'vhd',
  roles: FORMAT_FILE,
  check: (options) => takeOptions('vhd', options, []),
  async open({ disks, readOnly }) {
    const image = requireDisk({ disks }, 'vhd');
    const { size, isHidden } = await readFixedVhd(image);
    if (isHidden && !readOnly) {
      throw new FusetapError('DENIED', 'other images are made on top of this VHD, so it must not be written', {
        hint: 'attach it with mode r',
      });
    }
    return joinDisks([{ disk: image, start: 0, size }]);
  },
} satisfies Driver;

export default vhd;
