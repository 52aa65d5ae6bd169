/**
 * ram: the disk is a copy of an image, or of another disk, in memory, made once at the first attach and shared by all vbds of that image.
 * The image is never written. The memory is a memfd of fusetap's keeper, so it outlives the process that serves it. It
 * is sealed after it is filled, so that no client can change its size, with or without passthrough.
 *
 *      prepare:  disk ──data extents──► memory.fd, sealed          (once)
 *      open:     memory.fd as a window                             (at each start of the server)
 */
import { fstat } from 'node:fs';
import { promisify } from 'node:util';
import { addSeals, F_SEAL_GROW, F_SEAL_SHRINK } from '../../system/libc.js';
import type { Driver, Memory } from '../driver.js';
import { FusetapError } from '../errors.js';
import { requireDisk } from '../image.js';
import { windowDisk } from '../segments/window.js';
import { copyDisk, measureData } from './copy.js';

const fstatAsync = promisify(fstat);

/** The value that `prepare` returns. A type alias, because an interface does not match Json. */
export type RamState = { sizeBytes: number };

const ram = {
  name: 'ram',
  roles: { file: { takes: 'disk', access: 'read' } },
  rawImage: true,
  scratch: 'shared',

  measure({ disks, signal }) {
    return measureData(requireDisk({ disks }, 'ram'), signal);
  },

  async prepare({ disks, path, memory, signal, progress }) {
    const source = requireDisk({ disks }, 'ram');
    await copyDisk({ disk: source, path }, memory, { signal, progress });
    addSeals(memory.fd, F_SEAL_GROW | F_SEAL_SHRINK);
    return { sizeBytes: source.size };
  },

  async open({ memory, state, readOnly }) {
    if (!memory || !state) throw new FusetapError('FAILED', 'ram: the memory was not prepared');
    await checkSize(memory, state.sizeBytes);
    const window = {
      fd: memory.fd,
      start: 0,
      size: state.sizeBytes,
      kind: 'memory',
      readOnly,
      durable: false,
    } as const;
    return windowDisk(window, async () => {}); // the memory belongs to the keeper
  },
} satisfies Driver<RamState>;

async function checkSize(memory: Memory, sizeBytes: number): Promise<void> {
  const { size } = await fstatAsync(memory.fd);
  if (size === sizeBytes) return;
  throw new FusetapError('FAILED', `ram: the memory has ${size} bytes, not the ${sizeBytes} that were prepared`);
}

export default ram;
