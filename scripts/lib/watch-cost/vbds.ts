/** Many vbds on one bus. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { resolveBus } from '../../../mount/client/index.js';
import { call } from '../../../mount/control/call.js';

/** Attaches the images to bus 0. @returns the paths of the vbds */
export async function attachAll(runtimeDir: string, images: readonly string[]): Promise<string[]> {
  const place = await resolveBus('0', runtimeDir);
  const paths: string[] = [];
  for (const image of images) {
    const { path } = await call(place, 'POST /vbds', { body: { driver: 'aio', image } });
    paths.push(path);
  }
  return paths;
}

/** Reads each and writes to each once, in another process, so that each has counters of two kinds. */
export async function readSome(paths: readonly string[]): Promise<void> {
  const read = 'dd if="$f" of=/dev/null bs=64k count=4 status=none';
  const write = 'dd if=/dev/zero of="$f" bs=4k count=4 conv=notrunc status=none';
  const script = `for f; do ${read}; ${write}; done`;
  await promisify(execFile)('sh', ['-c', script, 'sh', ...paths]);
}
