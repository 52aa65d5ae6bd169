/**
 * snapshot: the disk shows its base, and what is written goes to memory. The base is never written, and can be any disk.
 * Each vbd has a memory of its own: a memfd of fusetap's keeper, so what was acknowledged outlives the process that
 * serves it.
 *
 *      prepare:  memory.fd gets its size: all holes, sealed        (once)
 *      open:     the base, below what the memory has               (at each start of the server)
 */
import { fstat, ftruncate } from 'node:fs';
import { promisify } from 'node:util';
import { addSeals, F_SEAL_GROW, F_SEAL_SHRINK } from '../../system/libc.js';
import type { Disk } from '../disk.js';
import type { Driver, Given, Memory } from '../driver.js';
import { FusetapError } from '../errors.js';
import { layoutOf } from './layout.js';
import { memoryCalls } from './memory-calls.js';
import { snapshotDisk } from './snapshot-disk.js';

const [fstatAsync, ftruncateAsync] = [promisify(fstat), promisify(ftruncate)];

/** The value that `prepare` returns. A type alias, because an interface does not match Json. */
export type SnapshotState = { sizeBytes: number };

const snapshot = {
  name: 'snapshot',
  roles: { file: { takes: 'disk', access: 'read' } },
  // an image of another format shows its own bytes, which nobody wants: it is refused as for the driver of raw images
  rawImage: true,
  scratch: 'own',
  opensUnread: true,

  async measure({ disks }) {
    layoutOf(baseOf(disks).size);
    return 0;
  },

  async prepare({ disks, memory }) {
    const { sizeBytes, totalBytes } = layoutOf(baseOf(disks).size);
    await ftruncateAsync(memory.fd, totalBytes);
    addSeals(memory.fd, F_SEAL_GROW | F_SEAL_SHRINK);
    return { sizeBytes };
  },

  async open({ disks, memory, state, readOnly, mayFill }) {
    if (!memory || !state) throw new FusetapError('FAILED', 'snapshot: the memory was not prepared');
    const base = baseOf(disks);
    const layout = layoutOf(state.sizeBytes);
    await checkSizes(base, memory, layout);
    const calls = memoryCalls(memory.fd);
    return snapshotDisk({ base, layout, calls, memoryFd: memory.fd, readOnly, ...(mayFill && { mayFill }) });
  },
} satisfies Driver<SnapshotState>;

function baseOf({ file }: Given['disks']): Disk {
  if (file !== undefined) return file;
  throw new FusetapError('USAGE', 'snapshot: no image was given', { hint: 'name one, as snapshot:disk.img' });
}

async function checkSizes(
  base: Disk,
  memory: Memory,
  layout: { sizeBytes: number; totalBytes: number },
): Promise<void> {
  const { sizeBytes, totalBytes } = layout;
  if (base.size !== sizeBytes) {
    throw new FusetapError('FAILED', `snapshot: the base has ${base.size} bytes now, not ${sizeBytes} as before`, {
      hint: 'restore the base: it must not change while it is attached',
    });
  }
  const { size } = await fstatAsync(memory.fd);
  if (size === totalBytes) return;
  throw new FusetapError('FAILED', `snapshot: the memory has ${size} bytes, not the ${totalBytes} that were prepared`);
}

export default snapshot;
