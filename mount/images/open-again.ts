/**
 * Opens an image again, for writing, that is open for reading: the same file, wherever its path leads by now.
 */
import { type BigIntStats, constants, open } from 'node:fs';
import { stat } from 'node:fs/promises';
import { promisify } from 'node:util';
import { closeAll } from '../../drivers/close-fd.js';
import { FusetapError } from '../../drivers/errors.js';
import { named } from '../../drivers/quote.js';
import { setNonBlocking } from '../../system/libc.js';
import { deviceName, locate, readMounts } from '../../system/proc.js';
import { outlastExec } from './image-fds.js';
import { identityOf, type OpenedImage, type OwnBus, refuseDevice, refuseOpen } from './open-image.js';

const openAsync = promisify(open);
const { O_NOCTTY, O_NONBLOCK, O_RDWR } = constants;

/**
 * @returns a descriptor that the caller must close
 * @throws FusetapError FAILED if its path leads elsewhere: what is written would be lost with the file; DENIED if it cannot
 *   be written; BUSY if its file system does not answer
 */
export async function openAgainForWriting(image: OpenedImage, bus: OwnBus): Promise<number> {
  const { path, realPath } = image;
  const opening = (): Promise<number> => openAgain(image, bus);
  if (bus.answering === undefined) return await opening();
  const at = locate(await readMounts('self'), realPath);
  return await bus.answering.withinLimit({ path, at }, opening, (fd) => closeAll([fd]));
}

async function openAgain(image: OpenedImage, bus: OwnBus): Promise<number> {
  const { fd, path, rdev } = image;
  await refuseMoved(image);
  if (rdev !== null) await refuseDevice(rdev, { path, mode: 'w', bus });
  const same = `/proc/self/fd/${fd}`;
  const opened = await openAsync(same, O_RDWR | O_NONBLOCK | O_NOCTTY).catch(refuseOpen(path, Buffer.from(same), 'w'));
  // the server is given this same open file description
  setNonBlocking(opened, false);
  return await outlastExec(opened);
}

async function refuseMoved(image: OpenedImage): Promise<void> {
  const found = await stat(image.path, { bigint: true }).catch(() => null);
  if (found !== null && identityOf(placeOf(found)) === identityOf(image)) return;
  throw new FusetapError('FAILED', `${named(image.path)} was moved, replaced or removed since it was opened`, {
    hint: 'move it back to its place',
    path: image.path,
  });
}

function placeOf(stats: BigIntStats): Pick<OpenedImage, 'dev' | 'ino' | 'rdev'> {
  const rdev = stats.isBlockDevice() ? deviceName(stats.rdev) : null;
  return { dev: deviceName(stats.dev), ino: String(stats.ino), rdev };
}
