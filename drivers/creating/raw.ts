/** Makes raw images: sparse files. */
import type { Creator } from './creator.js';
import { allocateFile, sizeFile } from './new-file.js';
import { chosen, takeOnly } from './options.js';

const PREALLOCATIONS = ['off', 'falloc'] as const;

const raw = {
  check({ size, options }) {
    takeOnly('raw', options, ['preallocation']);
    chosen(options, 'preallocation', PREALLOCATIONS);
    return size;
  },
  async write(fd, { size, options }) {
    await sizeFile(fd, size);
    if (chosen(options, 'preallocation', PREALLOCATIONS) === 'falloc') await allocateFile(fd, size);
  },
} satisfies Creator;

export default raw;
