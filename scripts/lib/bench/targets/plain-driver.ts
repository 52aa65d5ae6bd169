/** A typical first driver of an author: a file with promises and no window, so the event loop serves it. */
import { fdatasync, read, write } from 'node:fs';
import { promisify } from 'node:util';
import type { RawDisk } from '../../../../drivers/driver.js';
import type { ImageDriver } from '../../../../drivers/image-driver.js';

const [readAt, writeAt, flush] = [promisify(read), promisify(write), promisify(fdatasync)];

const plain: ImageDriver = {
  name: 'plain',
  image: 'required',

  async open({ image, readOnly }): Promise<RawDisk> {
    if (image === null) throw new TypeError('attach gives an image to a driver that requires one');
    const { fd, sizeBytes: size } = image;
    return {
      size,
      async read(buffer, offset) {
        const { bytesRead } = await readAt(fd, buffer, 0, buffer.length, offset);
        if (bytesRead < buffer.length) throw Object.assign(new Error('the image has shrunk'), { errno: -5 });
      },
      ...(!readOnly && {
        async write(buffer: Uint8Array, offset: number, { durable }: { durable: boolean }) {
          const { bytesWritten } = await writeAt(fd, buffer, 0, buffer.length, offset);
          if (bytesWritten < buffer.length) throw Object.assign(new Error('short write'), { errno: -5 });
          if (durable) await flush(fd);
        },
      }),
      flush: () => flush(fd),
      async close() {},
    };
  },
};

export default plain;
