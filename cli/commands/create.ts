/** `fusetap create`: makes a sparse image. */
import { closeSync, ftruncateSync, openSync, unlinkSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { FusetapError, toFusetapError } from '../../drivers/errors.js';
import { quoted } from '../../drivers/quote.js';
import { endHelp, type SharedOptions } from '../options.js';
import { printJson } from '../output.js';
import { parseSize } from '../size.js';

export function register(program: Command): void {
  const command = program
    .command('create')
    .summary('make a sparse image')
    .description('Makes a sparse image of SIZE bytes. Never overwrites a file: exit 4 if IMAGE exists.')
    .argument('<IMAGE>', 'the file to make')
    .argument('<SIZE>', 'in bytes, or with a unit: K, M, G, T or KiB, MiB … (1024), KB, MB … (1000)')
    .action((image: string, size: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<SharedOptions>();
      // an empty image cannot be a disk
      const sizeBytes = parseSize(size, 'SIZE', 1);
      createImage(image, sizeBytes);
      if (options.json) printJson({ image: resolve(image), size: sizeBytes });
    });
  endHelp(command, ['fusetap create disk.img 10G']);
}

/** Makes a sparse file. @throws FusetapError BUSY if the name exists */
function createImage(image: string, sizeBytes: number): void {
  const fd = openNew(image);
  try {
    ftruncateSync(fd, sizeBytes);
  } catch (error) {
    unlinkSync(image);
    const { code } = error as NodeJS.ErrnoException;
    throw toFusetapError(error, `cannot make an image of ${sizeBytes} bytes: ${image}: ${code}`, {
      hint: code === 'EFBIG' ? 'that file system does not allow files of this size' : undefined,
      path: image,
    });
  } finally {
    closeSync(fd);
  }
}

function openNew(image: string): number {
  try {
    return openSync(image, 'wx');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') {
      throw new FusetapError('BUSY', `it is there already: ${image}`, {
        hint: 'choose another name, or remove it first',
        path: image,
      });
    }
    const hint = code === 'ENOENT' ? 'make its directory first' : undefined;
    throw toFusetapError(error, `cannot make the image ${quoted(image)}: ${code}`, { hint, path: image });
  }
}
