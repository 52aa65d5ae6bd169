/**
 * sync: the disk is the image file itself, and each write and zero is durable before it is acknowledged (RWF_DSYNC,
 * fdatasync). For logs, and for images that must not lose an acknowledged write in a power cut.
 */
import type { Driver } from '../driver.js';
import { imageWindow, ONE_FILE, requireImage } from '../image.js';
import { wholeImageDisk } from '../segments/growing-file.js';

const sync = {
  name: 'sync',
  roles: ONE_FILE,
  rawImage: true,
  async open({ files, readOnly }) {
    // the descriptor belongs to the process that opened the image
    return wholeImageDisk(imageWindow(requireImage({ files }, 'sync'), { readOnly, durable: true }));
  },
} satisfies Driver;

export default sync;
