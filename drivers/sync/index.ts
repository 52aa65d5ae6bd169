/**
 * sync: the image file itself, each write and zero durable before it is acknowledged (RWF_DSYNC, fdatasync): for logs,
 * and for images that must survive a power cut as their last writer saw them.
 */
import type { Driver } from '../driver.js';
import { imageWindow, requireImage } from '../image.js';
import { windowDisk } from '../window.js';

const sync = {
  name: 'sync',
  image: 'required',
  async open({ image, readOnly }) {
    const window = imageWindow(requireImage(image, 'sync'), { readOnly, durable: true });
    return windowDisk(window, async () => {}); // the descriptor belongs to who opened the image
  },
} satisfies Driver;

export default sync;
