/**
 * aio: the image file itself. Its page cache is the only cache, so what one opener writes every other reads, also one
 * that reads the raw image. A write is durable after a flush.
 */
import type { Driver } from '../driver.js';
import { imageWindow, requireImage } from '../image.js';
import { windowDisk } from '../window.js';

const aio = {
  name: 'aio',
  image: 'required',
  async open({ image, readOnly }) {
    const window = imageWindow(requireImage(image, 'aio'), { readOnly, durable: false });
    return windowDisk(window, async () => {}); // the descriptor belongs to who opened the image
  },
} satisfies Driver;

export default aio;
