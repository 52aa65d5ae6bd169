/**
 * aio: the disk is the image file itself. The page cache is the only cache, so every reader sees what another wrote,
 * also a program that reads the image file. A write is durable after a flush.
 */
import type { Driver } from '../driver.js';
import { imageWindow, ONE_FILE, requireImage } from '../image.js';
import { wholeImageDisk } from '../segments/growing-file.js';

const aio = {
  name: 'aio',
  roles: ONE_FILE,
  rawImage: true,
  async open({ files, readOnly }) {
    // the descriptor belongs to the process that opened the image
    return wholeImageDisk(imageWindow(requireImage({ files }, 'aio'), { readOnly, durable: false }));
  },
} satisfies Driver;

export default aio;
