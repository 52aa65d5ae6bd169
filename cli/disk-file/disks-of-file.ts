/** `--config FILE` of attach and run: the disks of a file, with the options that apply to all of them. */
import { defined } from '../../drivers/defined.js';
import { FusetapError } from '../../drivers/errors.js';
import type { AttachWords } from '../attach-request.js';
import type { ListedDisk } from '../listed-disk.js';
import { readDiskFile } from './read.js';

const OF_ONE_DISK = [
  ...(['vdev', 'mode', 'readOnly', 'driver', 'image', 'option', 'offset', 'sizelimit', 'share', 'filter'] as const),
];

/** The disks of a file. @throws FusetapError USAGE for words and options that only a SPEC can have */
export function disksOfFile(file: string, words: readonly string[], options: AttachWords): ListedDisk[] {
  const other = words[0] ?? OF_ONE_DISK.find((name) => options[name] !== undefined);
  if (other !== undefined) {
    throw new FusetapError('USAGE', `--config and ${other} contradict each other: the file names the disks`, {
      hint: 'with --config, give only options for all disks: --passthrough, --partitions, --transport and so on',
    });
  }
  const { passthrough, transport, partitions, sectorSize, raw, snapshot, backing } = options;
  const { allowOther, uid, gid, fileMode } = options;
  const ofDisks = { passthrough, transport, partitions, sectorSize, raw, snapshot, backing };
  return readDiskFile(file, defined({ ...ofDisks, allowOther, uid, gid, fileMode }));
}
