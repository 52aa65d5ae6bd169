/** Images full of incompressible data, and their page cache. */
import { randomBytes } from 'node:crypto';
import { open, statfs, writeFile } from 'node:fs/promises';
import { FusetapError } from '../../../drivers/errors.js';
import { quoted } from '../../../drivers/quote.js';
import { runCommand } from './command.js';

const TMPFS_MAGIC = 0x0102_1994;
const RAMFS_MAGIC = 0x8584_58f6;
const STEP_BYTES = 1 << 20;

/** Makes an image without holes: holes are read faster than data, and written more slowly. */
export async function fillImage(path: string, sizeBytes: number): Promise<void> {
  const step = randomBytes(STEP_BYTES);
  const file = await open(path, 'wx', 0o600);
  try {
    for (let offset = 0; offset < sizeBytes; offset += STEP_BYTES) {
      // all steps differ, so no layer below can deduplicate them
      step.writeDoubleLE(offset);
      await file.write(step, 0, STEP_BYTES, offset);
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

export async function isInMemory(directory: string): Promise<boolean> {
  const { type } = await statfs(directory);
  return type === TMPFS_MAGIC || type === RAMFS_MAGIC;
}

/** @throws FusetapError NO_SPACE */
export async function demandSpace(directory: string, neededBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  if (bavail * bsize >= neededBytes) return;
  const megabytes = (bytes: number): string => `${Math.ceil(bytes / 2 ** 20)} MB`;
  throw new FusetapError(
    'NO_SPACE',
    `the images need ${megabytes(neededBytes)} in ${quoted(directory)}, where ${megabytes(bavail * bsize)} are free`,
    { hint: 'give a smaller --size, fewer --targets, or another directory' },
  );
}

/** Empties the page cache: all of it as root, else the clean pages of the image. */
export async function dropCaches(imagePath: string): Promise<void> {
  await runCommand('sync', ['--file-system', imagePath], { timeoutMs: 120_000 });
  if (process.geteuid?.() === 0) return writeFile('/proc/sys/vm/drop_caches', '3');
  // dd(1): with count=0 the advice (POSIX_FADV_DONTNEED) is for the whole file
  await runCommand('dd', [`if=${imagePath}`, 'iflag=nocache', 'count=0', 'status=none']);
}
