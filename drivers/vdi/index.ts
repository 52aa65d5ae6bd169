/**
 * vdi: the disk in a static VDI of VirtualBox. Its blocks are in order, so the disk is one run of the image, and threads
 * serve it as they serve a raw image.
 */
import type { Driver } from '../driver.js';
import { FORMAT_FILE, requireDisk } from '../image.js';
import { takeOptions } from '../options.js';
import { joinDisks } from '../segments/join-disks.js';
import { readStaticVdi } from './header.js';

const vdi = {
  name: 'vdi',
  roles: FORMAT_FILE,
  check: (options) => takeOptions('vdi', options, []),
  async open({ disks }) {
    const image = requireDisk({ disks }, 'vdi');
    return joinDisks([{ disk: image, ...(await readStaticVdi(image)) }]);
  },
} satisfies Driver;

export default vdi;
